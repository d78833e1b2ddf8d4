package storetest

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
)

// lostVariable names the seed by which Ask draws the commits that lose their answers.
// Without it none does.
const lostVariable = "KEYROLL_TEST_LOST"

// loss decides which commits of a context lose their answers.
type loss struct {
	mu    sync.Mutex
	loses func() bool
	lost  bool
}

type lossKey struct{}

// losesAnswer is store.ForTests.LoseAnswer of every database of a test.
func losesAnswer(ctx context.Context) bool {
	l, _ := ctx.Value(lossKey{}).(*loss)
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := l.loses()
	l.lost = l.lost || lost
	return lost
}

// LoseAt returns a context in which the nth committed transaction loses its answer. lost
// reports whether that has happened.
func LoseAt(ctx context.Context, n int) (_ context.Context, lost func() bool) {
	l := &loss{loses: func() bool { n--; return n == 0 }}
	return context.WithValue(ctx, lossKey{}, l), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.lost
	}
}

// Ask runs an act of a test like a caller with a bad connection to the database: a
// commit may lose its answer, depending on the seed in KEYROLL_TEST_LOST. Then done
// reads whether the act has succeeded nevertheless; if not, or if done is nil because
// the act is idempotent, the act is repeated.
func Ask(ctx context.Context, t testing.TB, act func(ctx context.Context) error, done func() bool) error {
	t.Helper()
	random := draws(t)
	for range tries {
		if random == nil {
			break
		}
		losing, lost := LoseAt(ctx, 1+random(maxCommits))
		err := act(losing)
		if !lost() || !fail.Is(err, api.Unavailable) {
			return err
		}
		if done != nil && done() {
			return nil
		}
	}
	return act(ctx)
}

// KeepAnswers makes Ask lose no answers in a test, and in its subtests, that counts
// requests or fails at an exact point.
func KeepAnswers(t testing.TB) {
	streams.Lock()
	defer streams.Unlock()
	streams.exact = append(streams.exact, t.Name())
}

// An act is tried tries times while answers get lost, each time at one of its first
// maxCommits commits.
const (
	tries      = 3
	maxCommits = 4
)

// streams has the random numbers of each test.
var streams struct {
	sync.Mutex
	of    map[string]*rand.Rand
	exact []string // tests that KeepAnswers named
}

// draws returns the random numbers of a test, nil without a seed.
func draws(t testing.TB) func(n int) int {
	t.Helper()
	text := os.Getenv(lostVariable)
	if text == "" {
		return nil
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is not a number: %v", lostVariable, err)
	}
	streams.Lock()
	defer streams.Unlock()
	name := t.Name()
	for _, exact := range streams.exact {
		if name == exact || strings.HasPrefix(name, exact+"/") {
			return nil
		}
	}
	if streams.of == nil {
		streams.of = map[string]*rand.Rand{}
	}
	random := streams.of[name]
	if random == nil {
		h := fnv.New64a()
		h.Write([]byte(name))
		random = rand.New(rand.NewPCG(seed, h.Sum64()))
		streams.of[name] = random
	}
	return func(n int) int {
		streams.Lock()
		defer streams.Unlock()
		return random.IntN(n)
	}
}

package crashtest

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"keyroll/internal/longtest"
)

// wrapPoints is the prefix of the fault points in the replacement of wraps that external
// vaults made. TestAnInterruptedReplacementContinues, which has such vaults, crashes at them.
const wrapPoints = "localwrap."

// mostPoints bounds the crashes of one scenario.
const mostPoints = 200

// Scenarios crash at every fault point: in make test once at each, in the first scenario
// that reaches it; in make test-long each scenario at each of its points, every time it
// reaches one.
func TestKilledAtEveryFaultPoint(t *testing.T) {
	points, err := faultPoints(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	points = slices.DeleteFunc(points, func(point string) bool {
		return strings.HasPrefix(point, movePoints) || strings.HasPrefix(point, wrapPoints)
	})
	base := runSteps(t, empty(t), stage)
	var mu sync.Mutex
	died := map[string]int{}
	t.Run("scenario", func(t *testing.T) {
		for _, s := range scenarios {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				p := empty(t)
				if !s.fresh {
					p = runSteps(t, base, s.prepare)
				}
				here := map[string]bool{}
				die := func(o order) death {
					d := crashOnce(t, p, o)
					if !d.clean {
						here[d.point] = true
						mu.Lock()
						died[d.point]++
						mu.Unlock()
					}
					return d
				}
				if longtest.On() {
					dieAtEach(t, s, here, die)
					return
				}
				// No run reaches that many points, so it ends normally and reports those it reached.
				for _, point := range crashOnce(t, p, order{Scenario: s.name, DieAt: math.MaxInt32}).met {
					mu.Lock()
					taken := died[point] > 0
					died[point]++
					mu.Unlock()
					if taken {
						continue
					}
					for tries := 0; crashOnce(t, p, order{Scenario: s.name, Point: point}).clean; tries++ {
						if tries == 3 {
							t.Errorf("no death at %s in %d runs", point, tries)
							break
						}
					}
				}
			})
		}
	})
	var never []string
	for _, point := range points {
		if died[point] == 0 {
			never = append(never, point)
		}
	}
	if len(never) > 0 && !t.Failed() {
		t.Errorf("no scenario died at: %s", strings.Join(never, ", "))
	}
	for point := range died {
		if !slices.Contains(points, point) {
			t.Errorf("a scenario died at %q, which is not in the source", point)
		}
	}
}

// dieAtEach crashes at the n-th point for each n until a run ends normally.
func dieAtEach(t *testing.T, s scenario, here map[string]bool, die func(order) death) {
	var d death
	for n := 1; !d.clean && !t.Failed(); n++ {
		if n > mostPoints {
			t.Fatalf("no run was clean in %d", mostPoints)
		}
		d = die(order{Scenario: s.name, DieAt: n})
	}
	// Background work of the node can shift the count past a point.
	for _, point := range d.met {
		if !here[point] {
			die(order{Scenario: s.name, Point: point})
		}
	}
}

// seedVariable repeats a run of TestKilledAtRandomPointsOfRandomOperations.
const seedVariable = "KEYROLL_CRASHTEST_SEED"

func TestKilledAtRandomPointsOfRandomOperations(t *testing.T) {
	seed := rand.Uint64()
	if text, set := os.LookupEnv(seedVariable); set {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d repeats this run", seedVariable, seed)
	base := runSteps(t, empty(t), stage)
	r := rand.New(rand.NewPCG(seed, 1))
	for range longtest.Of(2, 8) {
		o := order{Seed: 1 + r.Uint64N(1<<62)}
		s := o.scenario()
		t.Run(s.name, func(t *testing.T) {
			p := runSteps(t, base, s.prepare)
			for range 3 {
				o.DieAt = 1 + r.IntN(40)
				crashOnce(t, p, o)
			}
		})
	}
}

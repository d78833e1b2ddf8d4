package listen

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// A source may show freeGuesses invalid tokens or secrets without waiting, and
	// after that one each guessEvery; none waits for longer than guessWait.
	freeGuesses = 10
	guessEvery  = time.Second
	guessWait   = 10 * time.Second
	// mostGuessers is how many sources are told apart. Those above share one
	// allowance, until a minute goes by.
	mostGuessers = 4096
	// guessReport is how often the log says how many there were.
	guessReport = time.Minute
)

// guesses counts the invalid tokens and secrets that callers show, slows down who
// shows many, and reports them together: a line each would let a stranger fill
// the log.
type guesses struct {
	log *slog.Logger

	mu      sync.Mutex
	sources map[netip.Addr]*guesser
	total   int // since the last report; 0: none is due
}

type guesser struct {
	limit *rate.Limiter
	count int // since the last report
}

func newGuesses(log *slog.Logger) *guesses {
	return &guesses{log: log, sources: map[netip.Addr]*guesser{}}
}

// wait counts an invalid token or secret of a source, and returns when the source
// may have its answer.
func (g *guesses) wait(ctx context.Context, source netip.Addr) {
	timer := time.NewTimer(g.delay(source))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (g *guesses) delay(source netip.Addr) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, known := g.sources[source]; !known && len(g.sources) >= mostGuessers {
		source = netip.Addr{}
	}
	one := g.sources[source]
	if one == nil {
		one = &guesser{limit: rate.NewLimiter(rate.Every(guessEvery), freeGuesses)}
		g.sources[source] = one
	}
	one.count++
	if g.total++; g.total == 1 {
		time.AfterFunc(guessReport, g.report)
	}
	reserved := one.limit.Reserve()
	delay := reserved.Delay()
	if delay > guessWait {
		reserved.Cancel()
		delay = guessWait
	}
	return delay
}

// report logs the count of the last minute, and forgets the sources that have
// shown nothing since the report before.
func (g *guesses) report() {
	g.mu.Lock()
	defer g.mu.Unlock()
	var most netip.Addr
	sources := 0
	for source, one := range g.sources {
		if one.count == 0 {
			delete(g.sources, source)
			continue
		}
		sources++
		if top := g.sources[most]; top == nil || one.count > top.count {
			most = source
		}
	}
	g.log.Warn("callers showed invalid tokens or secrets", "count", g.total, "sources", sources, "most from", most.String(), "of them", g.sources[most].count)
	g.total = 0
	for _, one := range g.sources {
		one.count = 0
	}
}

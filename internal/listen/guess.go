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
	// A source may send freeGuesses invalid tokens or secrets without waiting, and
	// after that one in each guessEvery; none waits longer than guessWait.
	freeGuesses = 10
	guessEvery  = time.Second
	guessWait   = 10 * time.Second
	// maxGuessers is how many sources are counted separately. Further ones share one
	// allowance until the next report.
	maxGuessers = 4096
	// guessReport is the interval of the reports in the log.
	guessReport = time.Minute
)

// guesses counts the invalid tokens and secrets that callers send, slows down sources
// that send many, and reports them together: with a line for each an attacker could fill
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

// wait counts an invalid token or secret of a source, and returns when the request may
// be answered.
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
	if _, known := g.sources[source]; !known && len(g.sources) >= maxGuessers {
		source = netip.Addr{}
	}
	entry := g.sources[source]
	if entry == nil {
		entry = &guesser{limit: rate.NewLimiter(rate.Every(guessEvery), freeGuesses)}
		g.sources[source] = entry
	}
	entry.count++
	if g.total++; g.total == 1 {
		time.AfterFunc(guessReport, g.report)
	}
	reserved := entry.limit.Reserve()
	delay := reserved.Delay()
	if delay > guessWait {
		reserved.Cancel()
		delay = guessWait
	}
	return delay
}

// report logs the count of the last minute, and deletes the sources that have sent
// nothing invalid since the previous report.
func (g *guesses) report() {
	g.mu.Lock()
	defer g.mu.Unlock()
	var most netip.Addr
	sources := 0
	for source, entry := range g.sources {
		if entry.count == 0 {
			delete(g.sources, source)
			continue
		}
		sources++
		if top := g.sources[most]; top == nil || entry.count > top.count {
			most = source
		}
	}
	g.log.Warn("callers showed invalid tokens or secrets", "count", g.total, "sources", sources, "most from", most.String(), "of them", g.sources[most].count)
	g.total = 0
	for _, entry := range g.sources {
		entry.count = 0
	}
}

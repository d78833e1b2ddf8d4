package listen

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOnlyASourceOfManyInvalidTokensWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := newGuesses(slog.New(slog.NewTextHandler(&log, nil)))
		attacker, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		state := func() (logged string, sources int) { // a report holds the lock
			g.mu.Lock()
			defer g.mu.Unlock()
			return log.String(), len(g.sources)
		}
		began := time.Now()
		for range freeGuesses {
			g.wait(t.Context(), attacker)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("the first %d waited for %v", freeGuesses, waited)
		}
		for range 5 {
			g.wait(t.Context(), attacker)
		}
		if waited := time.Since(began); waited != 5*guessEvery {
			t.Errorf("five more waited for %v", waited)
		}
		for range 100 {
			if d := g.delay(attacker); d > guessWait {
				t.Fatalf("one waits for %v", d)
			}
		}
		if d := g.delay(other); d != 0 {
			t.Errorf("another source waits for %v", d)
		}
		if got, _ := state(); got != "" {
			t.Errorf("the log has %s before a minute has gone by", got)
		}
		time.Sleep(guessReport) // of the bubble's clock
		synctest.Wait()
		if got, _ := state(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `count=116 sources=2 "most from"=192.0.2.1 "of them"=115`) {
			t.Errorf("the log has %s", got)
		}
		g.wait(t.Context(), other)
		time.Sleep(guessReport)
		synctest.Wait()
		if got, sources := state(); sources != 1 || strings.Count(got, "\n") != 2 {
			t.Errorf("%d sources are kept, the log has %s", sources, got)
		}
		// However many sources there are, memory is bounded.
		for i := range 2 * maxGuessers {
			g.delay(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		}
		if _, sources := state(); sources > maxGuessers+1 {
			t.Errorf("%d sources are kept", sources)
		}
		time.Sleep(guessReport) // the last report
		synctest.Wait()
	})
}

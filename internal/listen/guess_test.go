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

func TestWhoShowsManyInvalidTokensWaitsAndNoOtherDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := newGuesses(slog.New(slog.NewTextHandler(&log, nil)))
		attacker, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
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
		if log.Len() > 0 {
			t.Errorf("the log has %s before a minute has gone by", &log)
		}
		time.Sleep(guessReport)
		synctest.Wait()
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `count=116 sources=2 "most from"=192.0.2.1 "of them"=115`) {
			t.Errorf("the log has %s", got)
		}
		g.wait(t.Context(), other)
		time.Sleep(guessReport)
		synctest.Wait()
		if len(g.sources) != 1 || strings.Count(log.String(), "\n") != 2 {
			t.Errorf("%d sources are kept, the log has %s", len(g.sources), &log)
		}
		// However many sources there are, memory is bounded.
		for i := range 2 * mostGuessers {
			g.delay(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		}
		if len(g.sources) > mostGuessers+1 {
			t.Errorf("%d sources are kept", len(g.sources))
		}
		time.Sleep(guessReport) // the last report
		synctest.Wait()
	})
}

package roll_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fault"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store/storetest"
)

// bubble runs a test on SQLite in a synctest bubble.
func bubble(t *testing.T, edit func(c *roll.Config), test func(w tenant)) {
	policytest.Bubble(t, func(t *testing.T) {
		test(newTenant(policytest.New(t, storetest.One(t))).with(func(c *roll.Config) {
			c.Now = time.Now
			if edit != nil {
				edit(c)
			}
		}))
	})
}

func TestRunContinuesEveryRunningRoll(t *testing.T) {
	bubble(t, nil, func(w tenant) {
		a, b := w.MailboxPolicy("a"), w.MailboxPolicy("b")
		w.mailboxes(a.ID, numbered("a", 2*testSlots)...)
		w.mailboxes(b.ID, numbered("b", 2*testSlots)...)
		first, second := w.begin(a), w.begin(b) // before the roller has started
		defer w.run()()
		until(t, "both have finished", func() bool {
			return w.ReloadRoll(first).State == api.RollFinished && w.ReloadRoll(second).State == api.RollFinished
		})
		third := w.begin(a)
		w.Roller.Wake()
		until(t, "the third has finished", func() bool { return w.ReloadRoll(third).State == api.RollFinished })
	})
}

// A roll that waits does not block others, and continues by itself.
func TestRunContinuesWhenTheVaultIsAvailableAgain(t *testing.T) {
	bubble(t, func(c *roll.Config) { c.Limit = rate.NewLimiter(1, testSlots) }, func(w tenant) {
		a, b := w.MailboxPolicy("a"), w.MailboxPolicy("b")
		w.mailboxes(a.ID, numbered("a", 3*testSlots)...)
		w.mailboxes(b.ID, numbered("b", testSlots)...)
		w.Policies.Close()
		waiting := w.begin(a)
		w.Policies.Close()
		w.away(a, policytest.Denied())
		defer w.run()()
		until(t, "it waits", func() bool { return strings.HasPrefix(w.ReloadRoll(waiting).Message, "waits: ") })
		other := w.begin(b)
		w.Roller.Wake()
		until(t, "the other one has finished", func() bool { return w.ReloadRoll(other).State == api.RollFinished })
		time.Sleep(time.Hour)
		w.Vaults.Calls()
		time.Sleep(time.Minute)
		if n := len(w.Vaults.Calls()); n == 0 || n > 8 {
			t.Errorf("%d calls to vaults in a minute of waiting", n)
		}
		w.away(a, nil)
		until(t, "it moves on, and says no longer that it waits", func() bool {
			now := w.Progress(waiting)
			return now.State == api.RollRunning && now.Done > 0 && now.Remaining > 0 && now.Message == ""
		})
		until(t, "it has finished", func() bool { return w.ReloadRoll(waiting).State == api.RollFinished })
	})
}

func TestRunContinuesAResumedRoll(t *testing.T) {
	bubble(t, func(c *roll.Config) { c.Limit = rate.NewLimiter(testSlots, testSlots) }, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 10*testSlots)...)
		ro := w.begin(pol)
		defer w.run()()
		until(t, "a page has moved", func() bool { return w.Progress(ro).Done > 0 })
		for range 3 {
			w.Must(w.SetState(ro, api.RollPaused))
			w.Must(w.SetState(ro, api.RollRunning)) // before the roller has seen the pause
			w.Roller.Wake()
		}
		w.Must(w.SetState(ro, api.RollPaused))
		time.Sleep(10 * time.Second)
		stood := w.Progress(ro)
		time.Sleep(10 * time.Second)
		if now := w.Progress(ro); now.Done != stood.Done || now.State != api.RollPaused || now.PerSecond != 0 {
			t.Errorf("paused: %+v after %+v", now, stood)
		}
		w.Must(w.SetState(ro, api.RollRunning))
		w.Roller.Wake()
		until(t, "it has finished", func() bool { return w.ReloadRoll(ro).State == api.RollFinished })
	})
}

// A roll that is paused while it ends, and resumed before its worker has gone,
// is not forgotten.
func TestRollResumedWhileItsWorkerStopsContinues(t *testing.T) {
	bubble(t, nil, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", testSlots)...)
		ro := w.begin(pol)
		defer fault.Set(nil)
		fault.Set(func(point string) {
			if point == "roll.before-finish" {
				fault.Set(nil)
				w.Must(w.SetState(ro, api.RollPaused))
			}
		})
		resumed := false
		w = w.with(func(c *roll.Config) {
			c.Now = time.Now
			c.Settled = func(_, _ int64) {
				if !resumed {
					resumed = true
					w.Must(w.SetState(ro, api.RollRunning))
					w.Roller.Wake()
					time.Sleep(time.Second) // Run polls, and finds the worker still running
				}
			}
		})
		defer w.run()()
		until(t, "it has finished", func() bool { return w.ReloadRoll(ro).State == api.RollFinished })
		if !resumed {
			t.Error("it was not resumed in between")
		}
	})
}

func TestRateLimitAllowsNoBurstBeyondOnePage(t *testing.T) {
	bubble(t, func(c *roll.Config) { c.Limit = rate.NewLimiter(testSlots, testSlots) }, func(w tenant) { // a page a second
		const pages = 12
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", pages*testSlots)...)
		time.Sleep(time.Hour) // nothing saves up
		ro := w.begin(pol)
		began := time.Now()
		defer w.run()()
		for w.ReloadRoll(ro).State == api.RollRunning {
			time.Sleep(100 * time.Millisecond)
			done, elapsed := w.Progress(ro).Done, time.Since(began)
			if most := testSlots * (1 + int64(elapsed/time.Second)); done > most {
				t.Errorf("%d containers after %v, want at most %d", done, elapsed, most)
			}
		}
		if took := time.Since(began); took < (pages-1)*time.Second || took > (pages+1)*time.Second {
			t.Errorf("%d pages took %v", pages, took)
		}
	})
}

func TestProgressRateAndETA(t *testing.T) {
	for name, perSecond := range map[string]float64{"a page a second": testSlots, "a page a minute": testSlots / 60.0} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(c *roll.Config) { c.Limit = rate.NewLimiter(rate.Limit(perSecond), testSlots) }, func(w tenant) {
				const pages = 25
				pol := w.MailboxPolicy("p")
				w.mailboxes(pol.ID, numbered("a", pages*testSlots)...)
				ro := w.begin(pol)
				if p := w.Progress(ro); p.Total != pages*testSlots || p.Done != 0 || p.Remaining != p.Total || p.PercentComplete != 0 || p.PerSecond != 0 || p.ETASeconds != 0 {
					t.Errorf("at the start: %+v", p)
				}
				defer w.run()()
				time.Sleep(time.Duration(10*testSlots/perSecond*float64(time.Second)) + time.Millisecond)
				p := w.Progress(ro)
				if p.Done != 11*testSlots || p.Remaining != 14*testSlots || p.PercentComplete != 44 {
					t.Errorf("after eleven pages: %+v", p)
				}
				if math.Abs(p.PerSecond/perSecond-1) > 0.05 || math.Abs(p.ETASeconds-float64(p.Remaining)/p.PerSecond) > 0.01 {
					t.Errorf("rate %v, ETA %v s, want %v a second", p.PerSecond, p.ETASeconds, perSecond)
				}
				until(t, "it has finished", func() bool { return w.ReloadRoll(ro).State == api.RollFinished })
				if p := w.Progress(ro); p.Done != p.Total || p.Remaining != 0 || p.PercentComplete != 100 || p.PerSecond != 0 || p.ETASeconds != 0 || p.Finished == nil {
					t.Errorf("at the end: %+v", p)
				}
			})
		})
	}
}

// The reader is done long before the last pages are sealed; their keys must
// last until then.
func TestPolicyKeysLastUntilTheLastPageIsSealed(t *testing.T) {
	slowly := func(c *roll.Config) {
		c.Reseal = func(from, to *envelope.Key, old, next envelope.EncryptionContext, body []byte) ([]byte, error) {
			time.Sleep(time.Second)
			return envelope.Reseal(from, to, old, next, body)
		}
	}
	bubble(t, slowly, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 3*testSlots)...)
		w.Finish(w.begin(pol), api.RollFinished)
	})
}

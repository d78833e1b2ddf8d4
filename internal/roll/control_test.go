package roll_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// update gives a site policy a new primary and begins its roll.
func (w tenant) update(pol policy.Policy) (ro roll.Roll) {
	w.Helper()
	primary, _ := w.NewVersions(pol)
	_, err := w.Change(w.Reload(pol), policy.Request{Act: policy.UpdatePrimary, Primary: primary, Depth: api.DepthPolicy}, func(tx *store.Tx, c policy.Change) (err error) {
		ro, err = roll.Begin(w.Ctx, tx, w.Policies, roll.Start{Policy: c.Policy, Revision: c.Revision.GUID}, w.Clock.Now())
		return err
	})
	w.Must(err)
	return ro
}

func (w tenant) cancel(ro roll.Roll) error {
	return w.DB.InTx(w.Ctx, func(tx *store.Tx) error { return roll.Cancel(w.Ctx, tx, w.Policies, ro, w.Clock.Now()) })
}

func TestRollThatHasMovedNothingCanBeCancelled(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		boxes := w.mailboxes(pol.ID, numbered("a", 3*testSlots)...)
		for _, state := range []api.RollState{api.RollRunning, api.RollPaused} {
			ro := w.begin(pol)
			if state == api.RollPaused {
				w.Must(w.SetState(ro, api.RollPaused))
			}
			stood := w.Dump("key_page")
			w.Must(w.cancel(ro))
			if p := w.Progress(ro); p.State != api.RollCancelled || p.Done != 0 || p.Finished == nil || p.Message == "" || p.Late {
				t.Errorf("%s, then cancelled: %+v", state, p)
			}
			if waits, err := w.Roller.Work(w.Ctx, ro); waits || err != nil {
				t.Errorf("worked on: waits %v, %v", waits, err)
			}
			if w.Dump("key_page") != stood {
				t.Error("it moved a page")
			}
		}
		// All of it is the next roll's to do.
		last := w.begin(pol)
		if last.Total != int64(len(boxes)) {
			t.Errorf("the roll after it has %d to move", last.Total)
		}
		w.Finish(last, api.RollFinished)
		for _, c := range boxes {
			if w.under(c) != w.current(pol) {
				t.Errorf("%s stayed", c.Name)
			}
		}
	})
}

// A roll under way, whose next page is already re-sealed, writes nothing after it was
// cancelled.
func TestCancellingStopsARunningRoll(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 3*testSlots)...)
		ro := w.begin(pol)
		stood := w.Dump("key_page")
		w = w.beforeReseal(func(n int) {
			if n == 1 {
				w.Must(w.cancel(ro))
			}
		})
		w.Finish(ro, api.RollCancelled)
		if w.Dump("key_page") != stood {
			t.Error("it moved a page")
		}
	})
}

// If a cancel and the first page come at the same time, one wins: the roll has moved
// nothing, or runs to its end.
func TestCancelAndFirstPageExcludeEachOther(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 3*testSlots)...)
		w = w.with(func(c *roll.Config) { c.Limit = pageAtATime() }) // a page a transaction
		for range 4 {
			ro := w.begin(pol)
			var refused error
			var g errgroup.Group
			g.Go(func() error { _, err := w.Roller.Work(w.Ctx, ro); return err })
			g.Go(func() error { refused = w.cancel(ro); return nil })
			w.Must(g.Wait())
			moved := 0
			for _, p := range w.pages() {
				if p.Class == envelope.ClassActive && p.Parent == ro.Target {
					moved++
				}
			}
			switch now := w.ReloadRoll(ro); {
			case refused == nil && (now.State != api.RollCancelled || moved != 0):
				t.Errorf("cancelled, it is %s and moved %d pages", now.State, moved)
			case refused != nil && (!fail.Is(refused, api.Conflict) || now.State != api.RollFinished || moved != 3):
				t.Errorf("not cancelled (%v), it is %s and moved %d pages", refused, now.State, moved)
			}
		}
	})
}

// Each roll that cannot be cancelled says why, and what to do instead.
func TestRollThatCannotBeCancelledSaysWhy(t *testing.T) {
	each(t, func(w tenant) {
		refuses := func(ro roll.Roll, why, hint string) {
			t.Helper()
			before := w.Dump()
			err := w.cancel(ro)
			policytest.Refuses(t, err, api.Conflict)
			if _, detail, h := fail.Public(err); !strings.Contains(detail, why) || !strings.Contains(h, hint) || !strings.Contains(h, fmt.Sprint(ro.ID)) {
				t.Errorf("%s; %s", detail, h)
			}
			if w.Dump() != before {
				t.Error("the refusal changed something")
			}
		}
		a, b := w.MailboxPolicy("a"), w.MailboxPolicy("b")
		w.mailboxes(a.ID, numbered("a", 3*testSlots)...)

		ended := w.begin(a)
		w.Finish(ended, api.RollFinished)
		refuses(ended, "it has already ended", "roll show")

		from, err := w.beginFrom(b, a.ID)
		w.Must(err)
		refuses(from, "from another policy", "roll pause")
		present := w.Reload(a)
		w.InTx(func(tx *store.Tx) error {
			_, _, err := w.Policies.Leave(w.Ctx, tx, present)
			return err
		})
		refuses(from, "left for good", "roll pause")
		w.Finish(from, api.RollFinished)

		w.Site("one")
		sites, registers := w.register()
		refuses(registers, "registers a site policy", "policy leave")
		w.Finish(registers, api.RollFinished)
		refuses(w.update(sites), "Registered under a key that protects none", "roll pause")
	})
}

func TestRollThatHasMovedAPageCannotBeCancelled(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 8*testSlots)...)
		ro := w.begin(pol)
		w = w.beforeReseal(func(n int) {
			if n == 6 {
				w.Must(w.SetState(ro, api.RollPaused))
			}
		})
		w.Finish(ro, api.RollPaused)
		err := w.cancel(ro)
		policytest.Refuses(t, err, api.Conflict)
		if _, detail, hint := fail.Public(err); !strings.Contains(detail, "begun to move containers") || !strings.Contains(hint, "roll pause") {
			t.Errorf("%s; %s", detail, hint)
		}
		if now := w.ReloadRoll(ro); now.State != api.RollPaused || now.Begun.IsZero() {
			t.Errorf("it is %+v", now)
		}
	})
}

func TestSweepMovesWhatNoOtherRollMoves(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, "active@contoso.com")
		for _, class := range []envelope.Class{envelope.ClassInactive, envelope.ClassDisconnected, envelope.ClassDisabled, envelope.ClassBackup} {
			w.Put(pol.Current, class, 2)
		}
		old := w.Usage()[0]
		plain := w.begin(pol)
		if plain.Total != 1 {
			t.Errorf("a roll has %d to move", plain.Total)
		}
		w.Finish(plain, api.RollFinished)
		ro := w.Begin(pol, api.DepthPolicy, roll.Options{IncludeInactive: true})
		if ro.Total != 9 {
			t.Errorf("a sweep has %d to move", ro.Total)
		}
		w.Finish(ro, api.RollFinished)
		if _, err := w.Policies.Retire(w.Ctx, w.Tenant, pol.ID); err != nil {
			t.Fatal(err)
		}
		for _, u := range w.Usage() {
			if u.Vault == old.Vault && u.Version == old.Version && u.Verdict == api.InUse {
				t.Errorf("the old version is needed still: %+v", u)
			}
		}
		if next := w.begin(pol); slices.Contains(next.Classes, envelope.ClassInactive) {
			t.Error("the roll after a sweep sweeps too")
		}
	})
}

// A roll's limit applies to the roll: the nodes that work on it share it.
func TestRollsOwnRateLimitAllowsNoBurstBeyondOnePage(t *testing.T) {
	t.Run("one node", func(t *testing.T) { checkSharedLimit(t, 1, testSlots/2) })
	t.Run("three nodes", func(t *testing.T) { checkSharedLimit(t, 3, 3*testSlots/2) })
}

// checkSharedLimit rolls under a limit that gives each of so many nodes a page in two seconds.
func checkSharedLimit(t *testing.T, nodes int, perSecond int64) {
	bubble(t, nil, func(w tenant) {
		const pages = 6
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", pages*testSlots)...)
		ro := w.Begin(pol, api.DepthPolicy, roll.Options{ContainersPerSecond: perSecond})
		w.Roller.SharedBy(ro.ID, nodes)
		began := time.Now()
		defer w.run()()
		for w.ReloadRoll(ro).State == api.RollRunning {
			time.Sleep(500 * time.Millisecond)
			done, elapsed := w.Progress(ro).Done, time.Since(began)
			if most := testSlots * (1 + int64(elapsed/(2*time.Second))); done > most {
				t.Errorf("%d containers after %v, want at most %d", done, elapsed, most)
			}
		}
		if took := time.Since(began); took < 2*(pages-1)*time.Second || took > 2*(pages+1)*time.Second {
			t.Errorf("%d pages took %v", pages, took)
		}
	})
}

// A roll is late as soon as its rate shows that it will be; that is reported once, and
// the roll goes on.
func TestLateRollIsLoggedOnceAndContinues(t *testing.T) {
	bubble(t, nil, func(w tenant) {
		const pages = 60
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", pages*testSlots)...)
		ro := w.Begin(pol, api.DepthPolicy, roll.Options{ContainersPerSecond: testSlots, Deadline: 40 * time.Second}) // it takes a minute
		told := func() int { return strings.Count(w.Dump("audit_entry"), fmt.Sprintf("roll %d of policy", ro.ID)) }
		if w.Progress(ro).Late {
			t.Error("late before it has a rate")
		}
		began := time.Now()
		stop := w.run()
		until(t, "it is late", func() bool { return w.Progress(ro).Late })
		if early := time.Since(began); early > 20*time.Second {
			t.Errorf("it was seen after %v", early)
		}
		until(t, "the log has it", func() bool { return told() == 1 })
		if entry := w.Dump("audit_entry"); !strings.Contains(entry, "|late|") || !strings.Contains(entry, "of 240 containers have been moved") {
			t.Errorf("no entry says so: %s", entry)
		}
		stop()
		stop = w.run()
		until(t, "it has finished", func() bool { return w.ReloadRoll(ro).State == api.RollFinished })
		stop()
		if n := told(); n != 1 || w.Progress(ro).Late {
			t.Errorf("told %d times; late at its end: %v", n, w.Progress(ro).Late)
		}
	})
}

// throttled is the answer of a vault with too many requests.
func throttled(rest time.Duration) error {
	err := fail.New(api.VaultUnavailable, "the vault received too many requests")
	err.RetryAfter = rest
	return err
}

// A roll waits as long as a vault asks for, up to a bound; each try is counted, and none
// makes the roll fail.
func TestVaultThatThrottlesSlowsARollDown(t *testing.T) {
	for name, rest := range map[string]time.Duration{"two minutes": 2 * time.Minute, "a year": 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(w tenant) {
				w.Site("one")
				pol, ro := w.register()
				w.Finish(ro, api.RollFinished)
				ro = w.update(pol)
				w.Policies.Close()
				w.away(pol, throttled(rest))
				w.Vaults.Calls()
				defer w.run()()
				asked := min(rest, 10*time.Minute) // each time; sooner, the vault has its rest
				time.Sleep(4*asked - time.Second)
				if n := len(w.Vaults.Calls()); n != 2*4 {
					t.Errorf("%d calls to the two vaults in four rests, want one each a rest", n)
				}
				if p := w.Progress(ro); p.State != api.RollRunning || p.Retries != 4 || !strings.Contains(p.Message, "too many requests") {
					t.Errorf("meanwhile: %+v", p)
				}
				w.away(pol, nil)
				until(t, "it has finished", func() bool { return w.ReloadRoll(ro).State == api.RollFinished })
				if p := w.Progress(ro); p.Message != "" || p.Retries != 4 {
					t.Errorf("at its end: %+v", p)
				}
			})
		})
	}
}

// The longest wait of any cause counts, at any depth of the error tree.
func TestRetryAfterReturnsTheLongestWaitInAnErrorTree(t *testing.T) {
	err := fmt.Errorf("open: %w", &fail.Error{Code: api.VaultUnavailable, Err: errors.Join(throttled(time.Second), fmt.Errorf("x: %w", throttled(time.Minute)))})
	if got := fail.RetryAfter(err); got != time.Minute {
		t.Errorf("%v", got)
	}
	if got := fail.RetryAfter(nil); got != 0 {
		t.Errorf("none: %v", got)
	}
}

func TestEstimateUsesASimilarRollOrTheStatedRates(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 3)...)
		w.Put(pol.Current, envelope.ClassInactive, 5)
		estimate := func(o roll.Options) (e api.Estimate) {
			t.Helper()
			before := w.Dump()
			next := pol
			next.Current = policy.KeyRow{} // yet to be made
			w.View(func(tx *store.Tx) error {
				plan, err := roll.Plan(w.Ctx, tx, w.Policies, roll.Start{Policy: next, Options: o}, w.Clock.Now())
				if err != nil {
					return err
				}
				return w.Roller.Estimate(w.Ctx, tx, plan, &e)
			})
			if w.Dump() != before {
				t.Error("it wrote something")
			}
			return e
		}
		if e := estimate(roll.Options{}); e.Containers != 3 || e.Stays != 5 || e.Seconds <= 0 || e.Seconds > 1 || !strings.Contains(e.Basis, "docs/performance.md") {
			t.Errorf("%+v", e)
		}
		if e := estimate(roll.Options{IncludeInactive: true, ContainersPerSecond: 2}); e.Containers != 8 || e.Stays != 0 || e.Seconds != 4 || !strings.Contains(e.Basis, "limit") {
			t.Errorf("a sweep under a limit: %+v", e)
		}
		ro := w.begin(pol)
		w.Clock.Advance(time.Minute)
		w.Finish(ro, api.RollFinished)
		w.Exec(`UPDATE roll SET total = 60000 WHERE id = ?1`, ro.ID) // as if it had been a large one
		pol = w.Reload(pol)
		if e := estimate(roll.Options{IncludeInactive: true}); e.Containers != 8 || e.Seconds < 0.0079 || e.Seconds > 0.0081 || !strings.Contains(e.Basis, fmt.Sprint(ro.ID)) {
			t.Errorf("by a roll of a thousand a second: %+v", e)
		}
		// The duration is not used if a limit made the roll slow, or it was of another depth.
		for _, change := range []string{"containers_per_second = 1000", "bytes_per_second = 1000", "total = 9999", "state = 'cancelled'", "depth = 'container'", "tenant = tenant + 1"} {
			var e api.Estimate
			other := errors.New("rolled back")
			err := w.DB.InTx(w.Ctx, func(tx *store.Tx) error {
				if _, err := tx.Exec(w.Ctx, `UPDATE roll SET `+change+` WHERE id = ?1`, ro.ID); err != nil {
					return err
				}
				next := pol
				next.Current = policy.KeyRow{}
				plan, err := roll.Plan(w.Ctx, tx, w.Policies, roll.Start{Policy: next}, w.Clock.Now())
				if err == nil {
					err = w.Roller.Estimate(w.Ctx, tx, plan, &e)
				}
				return errors.Join(other, err)
			})
			if !errors.Is(err, other) || !strings.Contains(e.Basis, "docs/performance.md") {
				t.Errorf("by a roll with %s: %+v, %v", change, e, err)
			}
		}
	})
}

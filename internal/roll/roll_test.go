package roll_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// pageAtATime is the highest limit at which a roller's batches have one page.
func pageAtATime() *rate.Limiter { return rate.NewLimiter(51_200, testSlots) }

func TestRollMovesExactlyTheClassesOfItsProfile(t *testing.T) {
	each(t, func(w tenant) {
		mail, other := w.MailboxPolicy("p"), w.MailboxPolicy("other")
		states := []envelope.Class{envelope.ClassActive, envelope.ClassInactive, envelope.ClassDisconnected, envelope.ClassDisabled}
		var boxes []container.Container
		for i, c := range w.mailboxes(mail.ID, numbered("a", 24)...) {
			state := states[i%len(states)]
			if state != envelope.ClassActive {
				var err error
				c, err = w.Containers.SetState(w.Ctx, w.Tenant, c, state)
				w.Must(err)
			}
			boxes = append(boxes, c)
		}
		w.mailboxes(other.ID, numbered("b", 5)...)
		w.mailboxes(0, numbered("c", 5)...)
		w.Site("x")
		w.Put(mail.Current, envelope.ClassBackup, 2)
		keys, before := w.keys(), w.pages()
		ro := w.begin(mail)
		if ro.Total != 6 {
			t.Errorf("total %d, want 6", ro.Total)
		}
		done := w.Finish(ro, api.RollFinished)
		if done.Finished == nil || done.Message != "" {
			t.Errorf("finished at %v: %q", done.Finished, done.Message)
		}
		moved := 0
		for id, page := range w.pages() {
			was := before[id]
			if was.Parent != mail.Current.ID || was.Class != envelope.ClassActive {
				if page.Version != was.Version || !bytes.Equal(page.Body, was.Body) || page.Parent != was.Parent {
					t.Errorf("a page of class %v under policy key %d was touched", was.Class, was.Parent)
				}
				continue
			}
			moved++
			if page.Parent != w.current(mail) || page.Version != was.Version+1 || page.Count != was.Count || bytes.Equal(page.Body, was.Body) {
				t.Errorf("an active page is %+v", page)
			}
		}
		if moved == 0 || len(w.pages()) != len(before) {
			t.Errorf("%d pages moved; %d pages, %d before", moved, len(w.pages()), len(before))
		}
		for _, c := range boxes {
			if active := c.State == envelope.ClassActive; active != (w.under(c) == w.current(mail)) {
				t.Errorf("a mailbox of state %v is under policy key %d", c.State, w.under(c))
			}
		}
		w.Policies.Close()
		w.wantSameKeys(keys, w.keys())
		if got := w.settled.policies; len(got) != 1 || got[0] != mail.ID {
			t.Errorf("settled %v", got)
		}
	})
}

func TestRegistrationMovesEverySiteFromTheServiceManagedPolicy(t *testing.T) {
	each(t, func(w tenant) {
		for i := range 9 {
			w.Site(fmt.Sprint("before", i))
		}
		w.mailboxes(0, numbered("a", 3)...)
		keys := w.keys()
		var pol policy.Policy
		w = w.beforeReseal(func(n int) {
			if n == 2 { // created while the roll is on its way
				w.Site("meanwhile")
			}
		})
		pol, ro := w.register()
		if ro.Total != 9 {
			t.Errorf("total %d, want 9", ro.Total)
		}
		w.Site("between")
		w.Finish(ro, api.RollFinished)
		w.Site("after")
		all, err := w.Containers.List(w.Ctx, w.Tenant, container.Site, 0, 100)
		w.Must(err)
		if len(all) != 12 {
			t.Errorf("%d sites", len(all))
		}
		for _, c := range all {
			if w.under(c) != pol.Current.ID {
				t.Errorf("%s is under policy key %d", c.Name, w.under(c))
			}
		}
		boxes, err := w.Containers.List(w.Ctx, w.Tenant, container.Mailbox, 0, 100)
		w.Must(err)
		for _, c := range boxes {
			if w.under(c) == pol.Current.ID {
				t.Errorf("%s came under the policy of sites", c.Name)
			}
		}
		now := w.keys()
		for id, key := range keys {
			if !key.Equal(now[id]) {
				t.Errorf("container %d has another key than before", id)
			}
		}
		if got := w.settled.policies; len(got) != 2 {
			t.Errorf("settled %v, want the site policy and the one that the sites left", got)
		}
	})
}

// A creation has read and opened the old policy key when a refresh and its whole roll
// happen.
func TestContainerMovedDuringARefreshEndsUnderTheNewestPolicyKey(t *testing.T) {
	acts := map[string]func(w tenant, pol policy.Policy, c container.Container) (container.Container, error){
		"create": func(w tenant, pol policy.Policy, _ container.Container) (container.Container, error) {
			return w.Containers.Create(w.Ctx, w.Tenant, container.Mailbox, "late@contoso.com", pol.ID)
		},
		"assign": func(w tenant, pol policy.Policy, c container.Container) (container.Container, error) {
			return w.Containers.Assign(w.Ctx, w.Tenant, c, pol.ID, api.ForRecovery)
		},
		"state": func(w tenant, pol policy.Policy, c container.Container) (container.Container, error) {
			c, err := w.Containers.Assign(w.Ctx, w.Tenant, c, pol.ID, api.ForRecovery)
			if err != nil {
				return c, err
			}
			if c, err = w.Containers.SetState(w.Ctx, w.Tenant, c, envelope.ClassInactive); err != nil {
				return c, err
			}
			w.Policies.Close()
			return w.Containers.SetState(w.Ctx, w.Tenant, c, envelope.ClassActive)
		},
	}
	for name, act := range acts {
		t.Run(name, func(t *testing.T) {
			each(t, func(w tenant) {
				pol := w.MailboxPolicy("p")
				c := w.mailboxes(0, "early@contoso.com")[0]
				w.Policies.Close()
				came := false
				w.Vaults.Before = func(context.Context, policytest.Call) error {
					if came {
						return nil
					}
					came = true
					w.Finish(w.begin(pol), api.RollFinished)
					return nil
				}
				c, err := act(w, pol, c)
				w.Must(err)
				if !came {
					t.Fatal("the refresh did not come in between")
				}
				if w.under(c) != w.current(pol) {
					t.Error("it is under an older policy key, although the roll has finished")
				}
				o, err := w.Containers.OpenKey(w.Ctx, c, api.ByUser)
				w.Must(err)
				o.Key.Zero()
			})
		})
	}
}

// Many writers run during refreshes and rolls: once the last roll has finished
// nothing active is left under an older policy key, and every key is there.
func TestConcurrentWritersWrapNothingUnderAnOldKey(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		boxes := w.mailboxes(pol.ID, numbered("a", 12)...)
		before := w.keys()
		stop := make(chan struct{})
		var writers sync.WaitGroup
		write := func(f func(i int) error) {
			writers.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					if err := f(i); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		write(func(i int) error {
			_, err := w.Containers.Create(w.Ctx, w.Tenant, container.Mailbox, fmt.Sprintf("new%d@contoso.com", i), pol.ID)
			return err
		})
		write(func(i int) error {
			c := boxes[i%6]
			to := []int64{0, pol.ID}[i/6%2]
			_, err := w.Containers.Assign(w.Ctx, w.Tenant, c, to, api.ForRecovery)
			return err
		})
		write(func(i int) error {
			c := boxes[6+i%6]
			state := []envelope.Class{envelope.ClassInactive, envelope.ClassActive}[i/6%2]
			_, err := w.Containers.SetState(w.Ctx, w.Tenant, c, state)
			return err
		})
		for range 5 {
			w.Finish(w.begin(pol), api.RollFinished)
			if _, err := w.Policies.Retire(w.Ctx, w.Tenant, pol.ID); err != nil {
				t.Error(err)
			}
		}
		close(stop)
		writers.Wait()
		for _, p := range w.pages() {
			for _, k := range w.policyKeys(pol) {
				if p.Parent == k.ID && k.ID != w.current(pol) && p.Class == envelope.ClassActive {
					t.Errorf("%d active mailboxes are under generation %d", p.Count, k.Generation)
				}
			}
		}
		w.Policies.Close()
		now := w.keys()
		for id, key := range before {
			if !key.Equal(now[id]) {
				t.Errorf("container %d has another key than before", id)
			}
		}
	})
}

func (w tenant) policyKeys(pol policy.Policy) (keys []policy.KeyRow) {
	w.View(func(tx *store.Tx) (err error) {
		keys, err = w.Policies.Keys(w.Ctx, tx, w.Tenant, pol.ID)
		return err
	})
	return keys
}

func TestRollerPausedDuringANewerRefreshWritesNothing(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 3*testSlots)...)
		keys := w.keys()
		var newer roll.Roll
		var written string
		sleeper := w.beforeReseal(func(n int) {
			if n == 2 {
				newer = w.begin(pol)
				w.Finish(newer, api.RollFinished)
				written = w.Dump("key_page")
			}
		})
		older := w.begin(pol)
		done := sleeper.Finish(older, api.RollSuperseded)
		if w.Dump("key_page") != written {
			t.Error("it wrote a page")
		}
		if done.Finished == nil || done.Message == "" {
			t.Errorf("the older roll ended at %v: %q", done.Finished, done.Message)
		}
		if p := w.Progress(older); p.State != api.RollSuperseded || p.Remaining != 0 {
			t.Errorf("progress of the older roll: %+v", p)
		}
		for _, p := range w.pages() {
			if p.Class == envelope.ClassActive && p.Parent != newer.Target {
				t.Errorf("a page is under policy key %d", p.Parent)
			}
		}
		w.wantSameKeys(keys, w.keys())
		for _, state := range []api.RollState{api.RollRunning, api.RollPaused} {
			policytest.Refuses(t, w.SetState(older, state), api.Conflict)
		}
	})
}

func TestPausedRollMovesNothingAndResumesWhereItWas(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 5*testSlots)...)
		keys := w.keys()
		var ro roll.Roll
		paused := w.beforeReseal(func(n int) {
			if n == 4 { // the pipeline is three pages ahead of the writer at most
				w.Must(w.SetState(ro, api.RollPaused))
			}
		})
		ro = w.begin(pol)
		paused.Finish(ro, api.RollPaused)
		p := w.Progress(ro)
		if p.Remaining == 0 || p.Done == 0 || p.Done+p.Remaining != 5*testSlots {
			t.Errorf("paused at %+v", p)
		}
		stood := w.Dump("key_page")
		w.Policies.Close()
		w.Vaults.Calls()
		w.Finish(ro, api.RollPaused) // work on it does nothing
		if w.Dump("key_page") != stood || len(w.Vaults.Calls()) != 0 {
			t.Error("a paused roll moved a page, or asked a vault")
		}
		policytest.Refuses(t, w.SetState(ro, api.RollPaused), api.Conflict)
		w.Must(w.SetState(ro, api.RollRunning))
		w.Finish(ro, api.RollFinished)
		w.wantSameKeys(keys, w.keys())
		policytest.Refuses(t, w.SetState(ro, api.RollRunning), api.Conflict)
	})
}

func TestRefreshSupersedesEveryUnfinishedRoll(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		boxes := w.mailboxes(pol.ID, numbered("a", 2*testSlots)...)
		paused := w.begin(pol)
		w.Must(w.SetState(paused, api.RollPaused))
		failed := w.begin(pol)
		repair := w.damage(boxes[0].Page)
		w.Finish(failed, api.RollFailed)
		repair()
		running := w.begin(pol)
		last := w.begin(pol)
		for _, ro := range []roll.Roll{paused, failed, running} {
			if now := w.ReloadRoll(ro); now.State != api.RollSuperseded {
				t.Errorf("a roll that a refresh came after is %s", now.State)
			}
		}
		w.Finish(last, api.RollFinished)
		other := w.begin(pol)
		if now := w.ReloadRoll(last); now.State != api.RollFinished {
			t.Errorf("a finished roll became %s", now.State)
		}
		w.Finish(other, api.RollFinished)
	})
}

// The roller's copies of policy keys do not outlive the batch that they serve.
func TestPolicyKeysAreZeroedAfterTheirBatch(t *testing.T) {
	storetest.KeepAnswers(t)
	w := newTenant(policytest.New(t, storetest.One(t)))
	var used []*envelope.Key
	w = w.with(func(c *roll.Config) {
		c.Limit = pageAtATime()
		c.Reseal = func(from, to *envelope.Key, old, next envelope.EncryptionContext, body []byte) ([]byte, error) {
			used = append(used, from, to)
			return envelope.Reseal(from, to, old, next, body)
		}
	})
	pol := w.MailboxPolicy("p")
	w.mailboxes(pol.ID, numbered("a", 3*testSlots)...)
	w.Finish(w.begin(pol), api.RollFinished)
	if len(used) != 6 {
		t.Errorf("%d keys used", len(used))
	}
	for _, key := range used {
		if key.Equal(key) {
			t.Error("a key was not zeroed")
		}
	}
}

func TestDamagedPageDelaysNoOtherAndTheRollContinuesAfterItsRepair(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		boxes := w.mailboxes(pol.ID, numbered("a", 5*testSlots)...)
		keys := w.keys()
		broken := boxes[2*testSlots].Page
		repair := w.damage(broken)
		ro := w.begin(pol)
		failed := w.Finish(ro, api.RollFailed)
		if !strings.Contains(failed.Message, fmt.Sprint(broken)) || failed.Finished == nil {
			t.Errorf("it failed at %v: %q", failed.Finished, failed.Message)
		}
		for id, p := range w.pages() {
			if p.Class == envelope.ClassActive && (p.Parent != ro.Target) != (id == broken) {
				t.Errorf("page %d is under policy key %d", id, p.Parent)
			}
		}
		skips := func(when string) {
			t.Helper()
			p := w.Progress(ro)
			if p.Remaining != testSlots || p.Done != 4*testSlots || p.SkippedCount != 1 || len(p.Skipped) != 1 || !strings.HasPrefix(p.Skipped[0], fmt.Sprintf("key page %d: ", broken)) {
				t.Errorf("%s: progress %+v", when, p)
			}
		}
		skips("failed")
		w.Must(w.SetState(ro, api.RollRunning))
		if p := w.Progress(ro); p.SkippedCount != 0 {
			t.Errorf("resumed: it skips %q before it met anything", p.Skipped)
		}
		w.Finish(ro, api.RollFailed) // nothing was repaired
		skips("failed again")
		repair()
		w.Must(w.SetState(ro, api.RollRunning))
		if done := w.Finish(ro, api.RollFinished); done.Message != "" {
			t.Errorf("finished: %q", done.Message)
		}
		if p := w.Progress(ro); p.SkippedCount != 0 || p.Skipped != nil {
			t.Errorf("finished: it skips %q", p.Skipped)
		}
		w.wantSameKeys(keys, w.keys())
	})
}

// Objects that a roll cannot decrypt are reported while it runs, the first one by name.
func TestSkippedContainersAreReportedWhileTheRollRuns(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		boxes := w.mailboxes(pol.ID, numbered("a", 25*testSlots)...)
		for i := range 22 {
			w.damage(boxes[i*testSlots].Page)
		}
		ro := w.begin(pol)
		told := int64(0)
		w = w.beforeReseal(func(n int) {
			if n == 25 {
				told = w.Progress(ro).SkippedCount
			}
		})
		w.Finish(ro, api.RollFailed)
		if p := w.Progress(ro); told == 0 || p.SkippedCount != 22 || len(p.Skipped) != 20 {
			t.Errorf("on its way: %d; at its end: %+v", told, p)
		}
	})
}

// An altered revision prevents moving the containers under its policy key, and no others.
func TestDamagedPolicyKeyDelaysNoOther(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 2*testSlots)...)
		first := pol.Current
		older := w.begin(pol)
		w.mailboxes(pol.ID, numbered("b", 2*testSlots)...)
		keys := w.keys()
		ro := w.begin(pol) // the older roll has moved nothing
		alter := func(key int64) (repair func()) {
			flip := func() {
				w.Exec(`UPDATE revision SET availability_version = 3 - availability_version WHERE policy_key = ?1`, key)
				w.Policies.Close()
			}
			flip()
			return flip
		}
		for _, damaged := range []int64{first.ID, ro.Target} {
			repair := alter(damaged)
			failed := w.Finish(ro, api.RollFailed)
			if !strings.Contains(failed.Message, fmt.Sprint(damaged)) {
				t.Errorf("it failed: %q", failed.Message)
			}
			if damaged == first.ID {
				for _, p := range w.pages() {
					if p.Class == envelope.ClassActive && p.Parent == older.Target {
						t.Error("a page under a sound policy key was not moved")
					}
				}
			}
			repair()
			w.Must(w.SetState(ro, api.RollRunning))
		}
		w.Finish(ro, api.RollFinished)
		w.wantSameKeys(keys, w.keys())
	})
}

// An outage of both vaults is not an act of the customer: the availability key is used.
func TestRollOfMailboxesContinuesDuringAnOutage(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 3*testSlots)...)
		keys := w.keys()
		ro := w.begin(pol)
		w.Policies.Close()
		w.away(pol, policytest.Away())
		w.Finish(ro, api.RollFinished)
		w.Policies.Close()
		w.away(pol, nil)
		w.wantSameKeys(keys, w.keys())
	})
}

// Both customer keys of the other policy may be lost: its containers are moved with the
// availability key. Nothing is moved to a policy that is inaccessible.
func TestRollFromAnotherPolicyNeedsOnlyItsAvailabilityKey(t *testing.T) {
	each(t, func(w tenant) {
		from, to := w.MailboxPolicy("from"), w.MailboxPolicy("to")
		w.mailboxes(from.ID, numbered("a", 3*testSlots)...)
		keys := w.keys()
		w.away(from, policytest.Denied())
		w.away(to, policytest.Denied())
		w.Policies.Close()
		var ro roll.Roll
		w.InTx(func(tx *store.Tx) error {
			rev, err := w.Policies.RevisionOf(w.Ctx, tx, w.Tenant, to.Current.ID)
			if err == nil {
				ro, err = roll.Begin(w.Ctx, tx, w.Policies, roll.Start{Policy: to, Source: from.ID, Revision: rev.GUID}, w.Clock.Now())
			}
			return err
		})
		if waits, err := w.Roller.Work(w.Ctx, ro); !waits || err != nil {
			t.Errorf("waits %v, %v", waits, err)
		}
		w.away(to, nil)
		w.Finish(ro, api.RollFinished)
		w.away(from, nil)
		w.wantSameKeys(keys, w.keys())
	})
}

func TestRollWaitsForVaultsThatRefuseAndReportsIt(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 3*testSlots)...)
		keys := w.keys()
		var ro roll.Roll
		for _, failure := range [][2]error{{policytest.Denied(), policytest.Denied()}, {policytest.Denied(), policytest.Away()}} {
			ro = w.begin(pol)
			w.Policies.Close()
			w.Vaults.Fail("A-p", failure[0])
			w.Vaults.Fail("B-p", failure[1])
			stood := w.Dump("key_page")
			if waits, err := w.Roller.Work(w.Ctx, ro); !waits || err != nil {
				t.Errorf("waits %v, %v", waits, err)
			}
			now := w.ReloadRoll(ro)
			if now.State != api.RollRunning || !strings.HasPrefix(now.Message, "waits: ") || !strings.Contains(now.Message, failure[0].Error()) || !strings.Contains(now.Message, failure[1].Error()) || !now.Finished.IsZero() {
				t.Errorf("the roll is %s: %q", now.State, now.Message)
			}
			if w.Dump("key_page") != stood {
				t.Error("it moved a page")
			}
			w.Must(w.SetState(ro, api.RollPaused)) // can be paused while it waits
			if waits, err := w.Roller.Work(w.Ctx, ro); waits || err != nil {
				t.Errorf("paused: waits %v, %v", waits, err)
			}
			w.Must(w.SetState(ro, api.RollRunning))
			w.away(pol, nil)
		}
		if done := w.Finish(ro, api.RollFinished); done.Message != "" {
			t.Errorf("finished: %q", done.Message)
		}
		w.wantSameKeys(keys, w.keys())
	})
}

// A roll is work for the user: when the customer revokes, it stops as soon as
// the cache has dropped the policy keys, not only at its end.
func TestRevocationStopsARunningRoll(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 12*testSlots)...)
		keys := w.keys()
		revoked := w.beforeReseal(func(n int) {
			if n == 4 {
				w.away(pol, policytest.Denied())
				w.Policies.Close()
			}
		})
		ro := w.begin(pol)
		if waits, err := revoked.Roller.Work(w.Ctx, ro); !waits || err != nil {
			t.Fatalf("waits %v, %v", waits, err)
		}
		if p := w.Progress(ro); p.Remaining == 0 || p.Message == "" {
			t.Errorf("progress %+v", p)
		}
		w.away(pol, nil)
		w.Finish(ro, api.RollFinished)
		w.wantSameKeys(keys, w.keys())
	})
}

// After a process ended, its roll is still in state running; there is no other state.
func TestRollInterruptedAtAnyPageContinuesInTheNextProcess(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 5*testSlots)...)
		keys := w.keys()
		for at := 1; at <= 6; at++ {
			ctx, end := context.WithCancel(w.Ctx)
			dying := w.beforeReseal(func(n int) {
				if n == at {
					end()
				}
			})
			ro := w.begin(pol)
			if _, err := dying.Roller.Work(ctx, ro); err == nil && w.ReloadRoll(ro).State == api.RollRunning {
				t.Error("it ended without an error, and is running")
			}
			w.wantSameKeys(keys, w.keys())
			next := w.with(func(*roll.Config) {})
			next.Finish(ro, api.RollFinished)
			w.wantSameKeys(keys, w.keys())
		}
	})
}

func TestRollWithoutContainersFinishesAtOnce(t *testing.T) {
	each(t, func(w tenant) {
		ro := w.begin(w.MailboxPolicy("p"))
		w.Finish(ro, api.RollFinished)
		p := w.Progress(ro)
		if p.Total != 0 || p.PercentComplete != 100 || p.Finished == nil || !p.Deadline.Equal(ro.Started.Add(72*time.Hour)) {
			t.Errorf("progress %+v", p)
		}
	})
}

func TestRollsOfAnotherTenantAreNotFound(t *testing.T) {
	w := newTenant(policytest.New(t, storetest.One(t)))
	ro := w.begin(w.MailboxPolicy("p"))
	other := w.Neighbour()
	w.View(func(tx *store.Tx) error {
		_, err := roll.Find(w.Ctx, tx, other.Tenant, fmt.Sprint(ro.ID))
		policytest.Refuses(t, err, api.NotFound)
		list, err := roll.List(w.Ctx, tx, other.Tenant, 0, 1000)
		if len(list) != 0 {
			t.Error("another tenant's roll is listed")
		}
		return err
	})
	stolen := ro
	stolen.Tenant = other.Tenant
	err := w.DB.InTx(w.Ctx, func(tx *store.Tx) error { return roll.SetState(w.Ctx, tx, stolen, api.RollPaused) })
	policytest.Refuses(t, err, api.Conflict)
	for _, id := range []string{"", "x", "1x", "0", "99999999999999999999"} {
		w.View(func(tx *store.Tx) error {
			if _, err := roll.Find(w.Ctx, tx, w.Tenant, id); err == nil {
				t.Errorf("%q is a roll", id)
			}
			return nil
		})
	}
}

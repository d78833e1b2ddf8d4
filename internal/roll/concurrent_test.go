package roll_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

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
			if n == 5 { // the pipeline is four pages ahead of what is written at most
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

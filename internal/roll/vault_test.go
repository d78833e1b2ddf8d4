package roll_test

import (
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

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

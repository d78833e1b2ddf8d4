package policy_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/keywork"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// hooked is a store of availability keys that calls a hook first.
type hooked struct {
	policy.Availability
	before func(act string, version uint32) error // wrap, open, opened or destroy; nil: nothing
}

func (h *hooked) runBefore(act string, version uint32) error {
	if h.before == nil {
		return nil
	}
	return h.before(act, version)
}

func (h *hooked) Open(ctx context.Context, id int64, version uint32, ec envelope.EncryptionContext, wrapped []byte) ([]byte, error) {
	if err := h.runBefore("open", version); err != nil {
		return nil, err
	}
	bundle, err := h.Availability.Open(ctx, id, version, ec, wrapped)
	if err != nil {
		return nil, err
	}
	return bundle, h.runBefore("opened", version)
}

func (h *hooked) Wrap(ctx context.Context, id int64, version uint32, ec envelope.EncryptionContext, plaintext []byte) ([]byte, error) {
	if err := h.runBefore("wrap", version); err != nil {
		return nil, err
	}
	return h.Availability.Wrap(ctx, id, version, ec, plaintext)
}

func (h *hooked) DestroyVersion(ctx context.Context, id int64, version uint32) error {
	if err := h.runBefore("destroy", version); err != nil {
		return err
	}
	return h.Availability.DestroyVersion(ctx, id, version)
}

// hook replaces the store of availability keys of a world by one with a hook.
func hook(w *policytest.World) *hooked {
	h := &hooked{Availability: w.Config.Availability}
	w.Configure(func(c *policy.Config) { c.Availability = h })
	return h
}

// onFirstCall runs f only at the first call of act.
func onFirstCall(act string, f func()) func(string, uint32) error {
	var mu sync.Mutex
	done := false
	return func(called string, _ uint32) error {
		mu.Lock()
		first := called == act && !done
		done = done || first
		mu.Unlock()
		if first {
			f()
		}
		return nil
	}
}

func mustRoll(w *policytest.World, pol policy.Policy) policy.Rolled {
	w.Helper()
	rolled, err := w.Policies.RollAvailability(w.Ctx, pol)
	w.Must(err)
	return rolled
}

// probe opens each kept wrap of a policy and fails the test unless all are under the
// given version of the availability key.
func probe(w *policytest.World, pol policy.Policy, version uint32) {
	w.Helper()
	for _, key := range keysOf(w, pol) {
		var rev policy.Revision
		err := w.DB.ViewOnce(w.Ctx, func(tx *store.Tx) (err error) {
			rev, err = w.Policies.RevisionOf(w.Ctx, tx, w.Tenant, key.ID)
			return err
		})
		if err != nil { // retired
			continue
		}
		if rev.AvailabilityVersion != version {
			w.Errorf("policy key %d is under version %d of the availability key, not %d", key.Generation, rev.AvailabilityVersion, version)
		}
		for _, p := range w.Policies.Probe(w.Ctx, w.Tenant, key.ID) {
			if p.Err != nil {
				w.Errorf("policy key %d by %s: %v", key.Generation, p.Root, p.Err)
			}
		}
	}
}

// twoGenerations returns a policy whose older policy key is still needed.
func twoGenerations(w *policytest.World) policy.Policy {
	pol := w.MailboxPolicy("p")
	w.Put(pol.Current, envelope.ClassInactive, 3)
	return w.Refresh(pol, api.DepthPolicy, false).Policy
}

func TestAvailabilityKeyRollReplacesEachThirdWrapAndDestroysTheOldVersion(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := twoGenerations(w)
		old, others := revisionOf(w, pol.Current), w.Dump("policy", "policy_key", "key_page")
		ec := envelope.EncryptionContext{Tenant: w.Tenant, Child: pol.Current.ID, Count: 1}
		copied, err := w.Availability.Wrap(w.Ctx, old.AvailabilityKey, old.AvailabilityVersion, ec, []byte("an old backup's wrap"))
		w.Must(err)
		w.Vaults.Fail("A-p", policytest.Denied())
		w.Vaults.Fail("B-p", policytest.Away())
		w.Vaults.Calls()
		w.Policies.Close()
		if got, want := mustRoll(w, pol), (policy.Rolled{Version: 2, Wraps: 2, Destroyed: 1}); got != want {
			t.Errorf("rolled %+v, want %+v", got, want)
		}
		if calls := w.Vaults.Calls(); len(calls) > 0 {
			t.Errorf("the customer's vaults were asked: %v", calls)
		}
		w.Vaults.Fail("A-p", nil)
		w.Vaults.Fail("B-p", nil)
		probe(w, pol, 2)
		now := revisionOf(w, pol.Current)
		if now.GUID != old.GUID || now.AvailabilityKey != old.AvailabilityKey || !now.Created.Equal(old.Created) {
			t.Errorf("the revision is %+v, was %+v", now, old)
		}
		if w.Dump("policy", "policy_key", "key_page") != others {
			t.Error("more than revisions was changed")
		}
		_, err = w.Availability.Open(w.Ctx, old.AvailabilityKey, old.AvailabilityVersion, ec, copied)
		policytest.Refuses(t, err, api.VaultDenied)
		if got := mustRoll(w, pol); got.Version != 3 || got.Destroyed != 1 {
			t.Errorf("the next roll: %+v", got)
		}
		probe(w, pol, 3)
	})
}

func TestAvailabilityKeyRollRecordsEachUseOfAnAvailabilityKey(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		seen := map[int64]bool{}
		uses(w, seen)
		mustRoll(w, pol)
		if got := fmt.Sprint(uses(w, seen)); got != "[done unwrap availability done unwrap availability done wrap availability]" {
			t.Errorf("the log has %s", got)
		}
		h := hook(w)
		h.before = func(string, uint32) error { return policytest.Away() }
		_, err := w.Policies.RollAvailability(w.Ctx, pol)
		policytest.Refuses(t, err, api.VaultUnavailable)
		if got := fmt.Sprint(uses(w, seen)); got != "[VaultUnavailable unwrap availability]" {
			t.Errorf("the log of a failed one has %s", got)
		}
	})
}

func TestReadSucceedsWhileItsAvailabilityKeyIsRolled(t *testing.T) {
	each(t, func(w *policytest.World) {
		managed := w.ServiceManagedPolicy()
		h := hook(w)
		h.before = onFirstCall("open", func() { mustRoll(w, managed) })
		w.Open(managed.Current.ID).Zero()
		probe(w, managed, 2)
	})
}

func TestRefreshDuringAnAvailabilityKeyRollLosesNoWrap(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := twoGenerations(w)
		version := uint32(1)
		for _, depth := range []api.Depth{api.DepthPolicy, api.DepthRoot} {
			for _, act := range []string{"wrap", "open", "opened"} { // before, while and after the refresh makes its third wrap
				w.Policies.Close()
				h := hook(w)
				h.before = onFirstCall(act, func() { mustRoll(w, pol) })
				w.Refresh(pol, depth, depth == api.DepthRoot)
				h.before = nil
				version++
				probe(w, pol, version)
			}
		}
	})
}

func TestAvailabilityKeyRollDuringARefreshLosesNoWrap(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := twoGenerations(w)
		version := uint32(1)
		for _, depth := range []api.Depth{api.DepthPolicy, api.DepthRoot} {
			h := hook(w)
			h.before = onFirstCall("open", func() { w.Refresh(pol, depth, depth == api.DepthRoot) })
			mustRoll(w, pol)
			h.before = nil
			version++
			probe(w, pol, version)
		}
	})
}

// The roll runs when the answer of the refresh's commit is lost: the caller must not get
// an error that says that nothing was changed.
func TestRefreshWhoseAnswerIsLostDuringARollMayHaveHappened(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := twoGenerations(w)
		committing, mode := false, storetest.Mode(t)
		mode.LoseAnswer = func(context.Context) bool {
			loses := committing
			if committing = false; loses {
				mustRoll(w, pol)
			}
			return loses
		}
		w.DB.SetForTests(mode)
		w.NewVersions(pol)
		_, err := w.Change(w.Reload(pol), policy.Request{Depth: api.DepthPolicy}, func(*store.Tx, policy.Change) error {
			committing = true
			return nil
		})
		policytest.Refuses(t, err, api.Unavailable)
		probe(w, pol, 2)
	})
}

func TestRollsAndRefreshesAtOnceLoseNoWrap(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := twoGenerations(w)
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				for range 3 {
					if _, err := w.Policies.RollAvailability(w.Ctx, pol); err != nil && !strings.Contains(err.Error(), "meanwhile") && !strings.Contains(err.Error(), "was destroyed") {
						t.Errorf("roll: %v", err)
					}
				}
			})
		}
		for i := range 6 {
			depth := []api.Depth{api.DepthPolicy, api.DepthRoot}[i%2]
			w.Refresh(pol, depth, depth == api.DepthRoot)
		}
		group.Wait()
		rolled := mustRoll(w, pol)
		probe(w, pol, rolled.Version)
		left := w.Number(`SELECT count(*) FROM availability_version WHERE tenant = ?1 AND policy = ?2 AND destroyed = 0`, w.Tenant, pol.ID)
		if left != 1 {
			t.Errorf("%d versions are not destroyed, want the newest alone", left)
		}
	})
}

func TestInterruptedAvailabilityKeyRollLosesNoWrapAndContinues(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := twoGenerations(w)
		h := hook(w)
		wraps := 0
		h.before = func(act string, _ uint32) error {
			if act == "wrap" {
				wraps++
			}
			if wraps > 1 {
				return policytest.Away()
			}
			return nil
		}
		rolled, err := w.Policies.RollAvailability(w.Ctx, pol)
		policytest.Refuses(t, err, api.VaultUnavailable)
		if rolled.Wraps != 1 || rolled.Destroyed != 0 {
			t.Errorf("rolled %+v", rolled)
		}
		h.before = nil
		for _, key := range keysOf(w, pol) {
			for _, p := range w.Policies.Probe(w.Ctx, w.Tenant, key.ID) {
				if p.Err != nil {
					t.Errorf("left: policy key %d by %s: %v", key.Generation, p.Root, p.Err)
				}
			}
		}
		roller := rollerOf(w, time.Hour)
		w.Must(roller.RollDue(w.Ctx))
		probe(w, pol, 2)
		if got := mustRoll(w, pol); got.Destroyed != 1 {
			t.Errorf("the pass left %d old versions", got.Destroyed-1)
		}
	})
}

func TestVersionThatCouldNotBeDestroyedIsDestroyedLater(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		h := hook(w)
		h.before = func(act string, _ uint32) error {
			if act == "destroy" {
				return policytest.Away()
			}
			return nil
		}
		if got, want := mustRoll(w, pol), (policy.Rolled{Version: 2, Wraps: 1}); got != want {
			t.Errorf("rolled %+v, want %+v", got, want)
		}
		h.before = nil
		w.Must(rollerOf(w, time.Hour).RollDue(w.Ctx))
		if got := mustRoll(w, pol); got.Version != 3 || got.Destroyed != 1 {
			t.Errorf("after the pass a roll is %+v", got)
		}
	})
}

func TestDamagedRevisionKeepsItsVersionAndDelaysNoOther(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := twoGenerations(w)
		w.Exec(`UPDATE revision SET primary_version = 'x' WHERE policy_key = ?1`, pol.Current.ID)
		rolled, err := w.Policies.RollAvailability(w.Ctx, pol)
		policytest.Refuses(t, err, api.Damaged)
		if rolled.Wraps != 1 || rolled.Destroyed != 0 {
			t.Errorf("rolled %+v", rolled)
		}
	})
}

func TestPurgedPolicyHasNoAvailabilityKeyToRoll(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		pol.Purge = policy.Purged
		_, err := w.Policies.RollAvailability(w.Ctx, pol)
		policytest.Refuses(t, err, api.Gone)
	})
}

func TestNewPolicyHasAFreshAvailabilityKey(t *testing.T) {
	each(t, func(w *policytest.World) {
		p, q := revisionOf(w, w.MailboxPolicy("p").Current), revisionOf(w, w.MailboxPolicy("q").Current)
		if p.AvailabilityKey == q.AvailabilityKey || p.AvailabilityVersion != 1 || q.AvailabilityVersion != 1 {
			t.Errorf("availability keys %d version %d, and %d version %d", p.AvailabilityKey, p.AvailabilityVersion, q.AvailabilityKey, q.AvailabilityVersion)
		}
	})
}

func rollerOf(w *policytest.World, every time.Duration) *keywork.AvailabilityRoller {
	return &keywork.AvailabilityRoller{DB: w.DB, Policies: w.Policies, Every: every, Logger: w.Config.Logger,
		Tenants: func(context.Context) ([]int64, error) { return []int64{w.Tenant}, nil }}
}

func TestAvailabilityKeysAreRolledAtTheirMaximumAge(t *testing.T) {
	each(t, func(w *policytest.World) {
		const every = 30 * 24 * time.Hour
		roller := rollerOf(w, every)
		old := w.MailboxPolicy("old")
		w.Clock.Advance(every - time.Millisecond)
		young := w.MailboxPolicy("young")
		w.Must(roller.RollDue(w.Ctx))
		probe(w, old, 1)
		w.Clock.Advance(time.Millisecond)
		for range 2 {
			w.Must(roller.RollDue(w.Ctx))
			probe(w, old, 2)
			probe(w, young, 1)
		}
		scheduled := w.Number(`SELECT count(*) FROM audit_entry WHERE tenant = ?1 AND operation = 'RollAvailabilityKeys' AND request = 'schedule'`, w.Tenant)
		if scheduled != 6 { // three uses for each of the old and the service-managed policy
			t.Errorf("%d uses name the schedule", scheduled)
		}
		w.Clock.Advance(every)
		h := hook(w)
		roller.Policies = w.Policies
		h.before = func(string, uint32) error { return policytest.Away() }
		policytest.Refuses(t, roller.RollDue(w.Ctx), api.VaultUnavailable)
		h.before = nil
		w.Must(roller.RollDue(w.Ctx))
		probe(w, old, 3)
		probe(w, young, 2)
	})
}

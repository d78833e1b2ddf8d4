package policy_test

import (
	"testing"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// loseIndexWrites runs a function while writes to an index are lost, and returns the world after
// that.
func loseIndexWrites(w *policytest.World, index string, during func(w *policytest.World)) *policytest.World {
	w.Helper()
	return w.Over(storetest.LoseWrites(w, w.DB, index, func(db *store.DB) { during(w.Over(db)) }))
}

// wantAuditedDamage fails the test unless err is Damaged and is in the audit log.
func wantAuditedDamage(w *policytest.World, err error) {
	w.Helper()
	policytest.Refuses(w, err, api.Damaged)
	n := w.Number(`SELECT COUNT(*) FROM audit_entry WHERE tenant = ?1 AND outcome = 'Damaged'`, w.Tenant)
	if n != 1 {
		w.Errorf("the audit log says it %d times", n)
	}
}

// The index that the ledger uses has lost a key page: the wraps of its policy key are not
// erased.
func TestRetireWithAWrongIndexErasesNoKeyInUse(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := policytest.New(t, db)
		pol := w.MailboxPolicy("p")
		w = loseIndexWrites(w, "key_page_place", func(w *policytest.World) { w.Put(pol.Current, envelope.ClassActive, 3) })
		w.Refresh(pol, api.DepthPolicy, false)
		n, err := w.Policies.Retire(w.Ctx, w.Tenant, pol.ID)
		if n != 0 {
			t.Errorf("%d policy keys were retired", n)
		}
		wantAuditedDamage(w, err)
		w.Open(pol.Current.ID).Zero()
		storetest.Reindex(t, w.DB, "key_page")
		if n, err := w.Policies.Retire(w.Ctx, w.Tenant, pol.ID); n != 0 || err != nil {
			t.Errorf("%d retired: %v", n, err)
		}
		w.Exec(`DELETE FROM key_page`)
		if n, err := w.Policies.Retire(w.Ctx, w.Tenant, pol.ID); n != 1 || err != nil {
			t.Errorf("%d retired: %v", n, err)
		}
	})
}

// The index of revisions has lost the current one: the version of the availability key of
// its wrap is not destroyed.
func TestAnAvailabilityKeyRollWithAWrongIndexDestroysNoVersionInUse(t *testing.T) {
	w := policytest.New(t, storetest.SQLite(t)) // a refresh on PostgreSQL would itself miss what its index leaves out
	pol := w.MailboxPolicy("p")
	w.Put(pol.Current, envelope.ClassActive, 3)
	w = loseIndexWrites(w, "revision_policy", func(w *policytest.World) { w.Refresh(pol, api.DepthPolicy, false) })
	rolled, err := w.Policies.RollAvailability(w.Ctx, pol)
	if rolled.Destroyed != 0 {
		t.Errorf("%+v", rolled)
	}
	wantAuditedDamage(w, err)
	destroyed := w.Number(`SELECT COUNT(*) FROM availability_version WHERE destroyed <> 0`)
	if destroyed != 0 {
		t.Errorf("%d versions are destroyed", destroyed)
	}
}

// A key is not destroyed if its policy was not purged, or if another policy has it too.
func TestAnAvailabilityKeyInUseIsNotDestroyed(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := policytest.New(t, db)
		pol, other := w.MailboxPolicy("p"), w.MailboxPolicy("q")
		wantAuditedDamage(w, w.Policies.DestroyAvailabilityKey(w.Ctx, w.Tenant, pol.ID))
		w.InTx(func(tx *store.Tx) error { return w.Policies.Delete(w.Ctx, tx, w.Tenant, pol.ID) })
		set := func(policy int64) {
			w.Exec(`UPDATE revision SET availability = (SELECT r.availability FROM revision r WHERE r.policy = ?2) WHERE policy = ?1`, other.ID, policy)
		}
		set(pol.ID)
		policytest.Refuses(w, w.Policies.DestroyAvailabilityKey(w.Ctx, w.Tenant, pol.ID), api.Damaged)
	})
}

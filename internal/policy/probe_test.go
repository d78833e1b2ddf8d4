package policy_test

import (
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
)

func TestPolicyTestReportsEachRoot(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		var rev policy.Revision
		w.View(func(tx *store.Tx) (err error) {
			rev, err = w.Policies.RevisionOf(w.Ctx, tx, w.Tenant, pol.Current.ID)
			return err
		})
		w.Vaults.Disable(rev.Secondary)
		w.DestroyAvailabilityKey(pol)
		type answer struct {
			root           string
			wraps, unwraps bool
			detail         string
		}
		check := func(tested policy.Policy, want ...answer) {
			t.Helper()
			probes, err := w.Policies.Test(w.Ctx, tested)
			w.Must(err)
			if len(probes) != len(want) {
				t.Fatalf("%d roots were tested, want %d: %+v", len(probes), len(want), probes)
			}
			for i, p := range probes {
				if p.Root != want[i].root || p.Wraps != want[i].wraps || p.Unwraps != want[i].unwraps || !strings.Contains(p.Detail, want[i].detail) || (p.Detail == "") != p.Unwraps {
					t.Errorf("%+v, want %+v", p, want[i])
				}
				if p.Milliseconds < 0 || p.Key == "" {
					t.Errorf("%+v says not how long it took, or which key it is about", p)
				}
			}
		}
		seen := map[int64]bool{}
		uses(w, seen)
		check(pol, answer{"primary", true, true, ""}, answer{"secondary", false, false, "is disabled"}, answer{"availability", false, false, "destroyed"})
		if got := strings.Join(uses(w, seen), ", "); got != "VaultDenied test availability, VaultDenied test secondary, done test primary, done test primary" {
			t.Errorf("the log has %s", got)
		}
		w.Vaults.Gives = func(_ policytest.Call, plaintext []byte) []byte { return make([]byte, len(plaintext)) }
		check(pol, answer{"primary", true, false, "does not decrypt what was encrypted to the public key"}, answer{"secondary", false, false, "is disabled"}, answer{"availability", false, false, "destroyed"})
		var managed policy.Policy
		w.View(func(tx *store.Tx) error {
			id, err := w.Policies.ServiceManaged(w.Ctx, tx, w.Tenant)
			if err == nil {
				managed, err = w.Policies.ByID(w.Ctx, tx, w.Tenant, id)
			}
			return err
		})
		check(managed, answer{"availability", true, true, ""})
		w.Vaults.Fail("A-p", policytest.Away())
		w.Exec(`UPDATE revision SET availability = availability + 1 WHERE policy_key = ?1`, pol.Current.ID)
		_, err := w.Policies.Test(w.Ctx, pol)
		policytest.Refuses(t, err, api.Damaged)
	})
}

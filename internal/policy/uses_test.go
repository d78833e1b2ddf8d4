package policy_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// managedKey is the current policy key of the service-managed policy.
func managedKey(w *policytest.World) (id int64) {
	w.Helper()
	w.View(func(tx *store.Tx) error {
		managed, err := w.Policies.ServiceManaged(w.Ctx, tx, w.Tenant)
		if err != nil {
			return err
		}
		key, err := w.Policies.Current(w.Ctx, tx, w.Tenant, managed)
		id = key.ID
		return err
	})
	return id
}

// uses returns the log's entries about root keys since the last call, as "outcome act
// root", sorted.
func uses(w *policytest.World, seen map[int64]bool) (list []string) {
	w.Helper()
	w.View(func(tx *store.Tx) error {
		rows, err := tx.Query(w.Ctx, `SELECT id, outcome, detail FROM audit_entry WHERE tenant = ?1`, w.Tenant)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			var outcome, detail string
			if err := rows.Scan(&id, &outcome, &detail); err != nil {
				return err
			}
			if seen[id] {
				continue
			}
			seen[id] = true
			if strings.HasPrefix(detail, "health of ") {
				continue // no use
			}
			_, root, _ := strings.Cut(detail, " by its ")
			root, _, _ = strings.Cut(root, " key")
			act, _, _ := strings.Cut(detail, " ")
			list = append(list, fmt.Sprintf("%s %s %s", outcome, act, root))
		}
		return rows.Err()
	})
	slices.Sort(list)
	return list
}

func TestEveryUseOfARootKeyIsInTheAuditLog(t *testing.T) {
	storetest.KeepAnswers(t)
	each(t, func(w *policytest.World) {
		seen := map[int64]bool{}
		want := func(what string, list ...string) {
			t.Helper()
			slices.Sort(list)
			if got := uses(w, seen); !slices.Equal(got, list) {
				t.Errorf("%s: the log has %q, want %q", what, got, list)
			}
		}
		availability := []string{"done wrap availability", "done unwrap availability"}
		all := append([]string{"done test primary", "done unwrap primary", "done test secondary", "done unwrap secondary"}, availability...)
		want("the service-managed policy", availability...)
		pol := w.MailboxPolicy("p")
		want("create", all...)
		w.Refresh(pol, api.DepthPolicy, false)
		want("refresh", all...)
		w.Vaults.Fail("A-p", policytest.Denied())
		w.Policies.Close()
		w.Open(pol.Current.ID).Zero()
		got := slices.DeleteFunc(uses(w, seen), func(use string) bool { return use == "VaultDenied unwrap primary" }) // if it was asked first
		if !slices.Equal(got, []string{"done unwrap secondary"}) {
			t.Errorf("open with one vault that refuses: the log has %q", got)
		}
		w.Vaults.Fail("B-p", policytest.Away())
		w.Policies.Close()
		_, err := w.Policies.Open(w.Ctx, w.Tenant, pol.Current.ID, api.ByUser)
		policytest.Refuses(t, err, api.VaultDenied)
		want("open with none", "VaultDenied unwrap primary", "VaultUnavailable unwrap secondary")
		w.Policies.Probe(w.Ctx, w.Tenant, pol.Current.ID)
		want("probe", "VaultDenied unwrap primary", "VaultUnavailable unwrap secondary", "done unwrap availability")
		w.Open(managedKey(w)).Zero()
		want("open by the availability key", "done unwrap availability")
		w.Open(managedKey(w)).Zero()
		want("open from the cache")
	})
}

// A revision that comes to nothing has used root keys all the same.
func TestUsesForARefreshThatFailsAreInTheAuditLog(t *testing.T) {
	storetest.KeepAnswers(t)
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		w.NewVersions(pol)
		seen := map[int64]bool{}
		uses(w, seen)
		w.Vaults.Before = func(_ context.Context, c policytest.Call) error {
			if c.Op == "unwrap" && c.Vault == "B-p" {
				return policytest.Away()
			}
			return nil
		}
		_, err := w.Change(pol, policy.Request{Depth: api.DepthPolicy})
		policytest.Refuses(t, err, api.VaultUnavailable)
		want := []string{"VaultUnavailable unwrap secondary", "done test primary", "done test secondary", "done unwrap primary"}
		if got := uses(w, seen); !slices.Equal(got, want) {
			t.Errorf("the log has %q, want %q", got, want)
		}
	})
}

// Of two requests at once the slower one is given up, but its vault may have
// done its work.
func TestSlowerOfTwoVaultRequestsIsInTheAuditLog(t *testing.T) {
	policytest.Bubble(t, func(t *testing.T) {
		w := policytest.New(t, storetest.One(t))
		pol := w.SitePolicy()
		seen := map[int64]bool{}
		uses(w, seen)
		w.Vaults.Before = func(ctx context.Context, c policytest.Call) error {
			if c.Vault == "A-Sites" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		w.Open(pol.Current.ID).Zero()
		synctest.Wait()
		want := []string{audit.Cancelled + " unwrap primary", "done unwrap secondary"}
		if got := uses(w, seen); !slices.Equal(got, want) {
			t.Errorf("the log has %q, want %q", got, want)
		}
	})
}

// Who, what and why come from the request that a root key serves; the exact
// version and the policy are named.
func TestAuditOfARootKeyRecordsPrincipalAndPurpose(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	pol := w.MailboxPolicy("p")
	origin := audit.Origin{Principal: uuid.New(), Actor: "alice the admin", Operation: "ExportMail", Request: "r-17"}
	w.Vaults.Fail("B-p", policytest.Away())
	ctx := audit.WithOrigin(w.Ctx, origin)
	for range 8 { // whichever vault is asked first
		w.Policies.Close()
		key, err := w.Policies.Open(ctx, w.Tenant, pol.Current.ID, api.ByUser)
		w.Must(err)
		key.Zero()
	}
	var rev policy.Revision
	w.View(func(tx *store.Tx) (err error) {
		rev, err = w.Policies.RevisionOf(w.Ctx, tx, w.Tenant, pol.Current.ID)
		return err
	})
	w.View(func(tx *store.Tx) error {
		var n int
		err := tx.QueryRow(w.Ctx, `SELECT COUNT(*) FROM audit_entry WHERE tenant = ?1 AND principal = ?2 AND operation = 'ExportMail' AND request = 'r-17'
			AND outcome = 'done' AND detail = ?3`, w.Tenant, origin.Principal.String(),
			fmt.Sprintf("unwrap policy key %d of policy %s by its primary key %s", pol.Current.ID, pol.GUID, w.Vaults.URI(rev.Primary))).Scan(&n)
		if n != 8 {
			t.Errorf("%d entries say so, want 8:\n%s", n, w.Dump("audit_entry"))
		}
		return err
	})
	if strings.Contains(w.Dump("audit_entry"), "alice") {
		t.Error("a name is in plaintext")
	}
}

package policy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// user, system and recovery name an operation or a job of each initiator.
const user, system, recovery = "ExportMail", policy.JobFollow, "AssignMailbox"

func initiatorOf(operation string) policy.Initiator {
	switch operation {
	case system:
		return policy.System
	case recovery:
		return policy.Recovery
	}
	return policy.User
}

func tryOpen(w *policytest.World, p *policy.Policies, operation string, pol policy.Policy) error {
	key, err := p.Open(w.As(operation), w.Tenant, pol.Current.ID, initiatorOf(operation))
	key.Zero()
	return err
}

// bothFail makes both vaults of a policy fail; a nil error ends that.
func bothFail(w *policytest.World, pol policy.Policy, a, b error) {
	w.Vaults.Fail("A-"+pol.Name, a)
	w.Vaults.Fail("B-"+pol.Name, b)
}

func multiWorkload(w *policytest.World) policy.Policy {
	w.Helper()
	a, b := w.Vaults.Add("A-m", "k"), w.Vaults.Add("B-m", "k")
	a.Version, b.Version = "", ""
	pol, err := w.Create(policy.Definition{Kind: api.MultiWorkloadPolicy, Name: "m", Primary: a, Secondary: b})
	w.Must(err)
	return pol.Policy
}

// fallbacks returns the entries of the log about an availability key that was used in
// place of customer keys, as "outcome operation request detail".
func fallbacks(w *policytest.World) (list []string) {
	w.Helper()
	w.View(func(tx *store.Tx) error {
		rows, err := tx.Query(w.Ctx, `SELECT outcome, operation, request, detail FROM audit_entry WHERE tenant = ?1 AND detail LIKE '%Fallback%' ORDER BY id`, w.Tenant)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var outcome, operation, request, detail string
			if err := rows.Scan(&outcome, &operation, &request, &detail); err != nil {
				return err
			}
			list = append(list, strings.Join([]string{outcome, operation, request, detail}, " | "))
		}
		return rows.Err()
	})
	return list
}

func TestMailboxesStayReadableInAnOutageOfBothVaults(t *testing.T) {
	each(t, func(w *policytest.World) {
		for _, pol := range []policy.Policy{w.MailboxPolicy("p"), multiWorkload(w)} {
			want := w.Open(pol.Current.ID)
			bothFail(w, pol, policytest.Away(), policytest.Away())
			for _, operation := range []string{user, system} {
				w.Policies.Close()
				key, err := w.Policies.Open(w.As(operation), w.Tenant, pol.Current.ID, initiatorOf(operation))
				w.Must(err)
				if !key.Equal(want) {
					t.Errorf("%s: the availability key opened another policy key", operation)
				}
			}
		}
	})
}

// The main guarantee: after a deliberate act, a key that the availability key opened for
// the service is never used for a user, neither from the cache, nor by sharing an unwrap
// under way, nor by taking turns.
func TestPolicyKeyOpenedForTheServiceNeverServesAUserAfterARefusal(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		for _, failures := range [][2]error{
			{policytest.Denied(), policytest.Denied()}, {policytest.Denied(), policytest.Away()}, {policytest.Away(), policytest.Denied()},
		} {
			bothFail(w, pol, failures[0], failures[1])
			for range 3 {
				w.Must(tryOpen(w, w.Policies, system, pol))
				policytest.Refuses(t, tryOpen(w, w.Policies, user, pol), api.VaultDenied)
			}
			// All call while the first unwrap, of either kind, is under way.
			for _, operations := range [][2]string{{user, system}, {system, user}} {
				w.Policies.Close()
				bothFail(w, pol, nil, nil)
				answer := make(chan struct{})
				w.Vaults.Before = func(_ context.Context, c policytest.Call) error {
					<-answer
					if strings.HasPrefix(c.Vault, "A-") {
						return failures[0]
					}
					return failures[1]
				}
				results := map[string]chan error{user: make(chan error, 8), system: make(chan error, 8)}
				for range 8 {
					for _, operation := range operations {
						go func() { results[operation] <- tryOpen(w, w.Policies, operation, pol) }()
						synctest.Wait()
					}
				}
				close(answer)
				for range 8 {
					policytest.Refuses(t, <-results[user], api.VaultDenied)
					w.Must(<-results[system])
				}
				if w.Policies.Cached(pol.Current.ID) != nil {
					t.Error("the key stands where users look")
				}
				w.Vaults.Before = nil
			}
		}
	})
}

// A key that the availability key opened for the service's own work in an outage is not
// shared either: a user's request uses the availability key itself, which is logged.
func TestUserAndServiceUseTheAvailabilityKeySeparately(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		bothFail(w, pol, policytest.Away(), policytest.Away())
		for range 2 {
			w.Must(tryOpen(w, w.Policies, system, pol))
			w.Must(tryOpen(w, w.Policies, user, pol))
		}
		var rev policy.Revision
		w.View(func(tx *store.Tx) (err error) {
			rev, err = w.Policies.RevisionOf(w.Ctx, tx, w.Tenant, pol.Current.ID)
			return err
		})
		got := fallbacks(w)
		if len(got) != 2 {
			t.Fatalf("the log has %d fallbacks, want one for each:\n%s", len(got), strings.Join(got, "\n"))
		}
		for i, operation := range []string{system, user} {
			request := "request of " + operation
			head := strings.Join([]string{"done", operation, request, fmt.Sprintf("unwrap policy key %d of policy %s by its availability key ", pol.Current.ID, pol.GUID)}, " | ")
			tail := fmt.Sprintf("; CustomerKeyServiceEncryption: Fallback to Availability Key, PolicyId %s, ScopeKeyVersionId %s, RequestId %s, job %s",
				pol.GUID, rev.GUID, request, operation)
			if !strings.HasPrefix(got[i], head) || !strings.HasSuffix(got[i], tail) {
				t.Errorf("the log says\n%s\nwant\n%s…%s", got[i], head, tail)
			}
		}
	})
}

// Without its entry in the log a use of the availability key returns no key.
func TestFallbackIsRefusedIfItCannotBeAudited(t *testing.T) {
	w := policytest.New(t, storetest.SQLite(t))
	pol := w.MailboxPolicy("p")
	bothFail(w, pol, policytest.Away(), policytest.Away())
	w.InTx(func(tx *store.Tx) error {
		_, err := tx.Exec(w.Ctx, `CREATE TRIGGER full BEFORE INSERT ON audit_entry WHEN NEW.detail LIKE '%Fallback%' BEGIN SELECT RAISE(FAIL, 'the disk is full'); END`)
		return err
	})
	if tryOpen(w, w.Policies, user, pol) == nil || w.Policies.Cached(pol.Current.ID) != nil {
		t.Error("the key was handed on")
	}
}

func TestDestroyedAvailabilityKeyUnwrapsNothing(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		w.DestroyAvailabilityKey(pol)
		for _, operation := range []string{user, system} {
			w.Policies.Close()
			w.Must(tryOpen(w, w.Policies, operation, pol))
			w.Policies.Close()
			bothFail(w, pol, policytest.Away(), policytest.Away())
			policytest.Refuses(t, tryOpen(w, w.Policies, operation, pol), api.VaultUnavailable)
			bothFail(w, pol, policytest.Denied(), policytest.Denied())
			policytest.Refuses(t, tryOpen(w, w.Policies, operation, pol), api.VaultDenied)
			w.Serve(pol)
		}
	})
}

// The availability key of a site policy is not used automatically, and for every caller
// in a recovery that the customer requested, after the customer keys were tried.
func TestAvailabilityKeyOfSitesIsUsedOnlyInARecovery(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.SitePolicy()
		for recovery, refused := range map[bool]bool{false: true, true: false} {
			w.InTx(func(tx *store.Tx) error {
				at := 0
				if recovery {
					at = 1
				}
				_, err := tx.Exec(w.Ctx, `UPDATE policy SET recovery = ?2 WHERE id = ?1`, pol.ID, at)
				return err
			})
			for _, failure := range []error{policytest.Away(), policytest.Denied()} {
				for _, operation := range []string{user, system} {
					w.Policies.Close()
					bothFail(w, pol, failure, failure)
					if err := tryOpen(w, w.Policies, operation, pol); (err != nil) != refused {
						t.Errorf("recovery %v, %v, %s: error is %v", recovery, failure, operation, err)
					}
					w.Vaults.Calls()
					bothFail(w, pol, nil, nil)
					w.Policies.Close()
					opens := w.Availability.Opens.Load()
					w.Must(tryOpen(w, w.Policies, operation, pol))
					if w.Availability.Opens.Load() != opens {
						t.Error("the availability key was asked first")
					}
				}
			}
		}
	})
}

// A key opened for the service's own work is cached no longer than RevocationBound, and
// then the customer keys are tried first again.
func TestPolicyKeyOpenedForTheServiceIsNotCachedBeyondItsBound(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		bothFail(w, pol, policytest.Denied(), policytest.Denied())
		w.Must(tryOpen(w, w.Policies, system, pol))
		w.DestroyAvailabilityKey(pol)
		time.Sleep(policy.RevocationBound - time.Second)
		w.Must(tryOpen(w, w.Policies, system, pol))
		time.Sleep(time.Second)
		policytest.Refuses(t, tryOpen(w, w.Policies, system, pol), api.VaultDenied)
	})
}

// One vault that is unavailable or refuses makes no request fail, of any kind.
func TestFailureOfOneVaultFailsNoRequest(t *testing.T) {
	each(t, func(w *policytest.World) {
		for _, pol := range []policy.Policy{w.MailboxPolicy("p"), w.SitePolicy(), multiWorkload(w)} {
			var keys []*envelope.Key
			for _, failures := range [][2]error{{policytest.Away(), nil}, {nil, policytest.Away()}, {policytest.Denied(), nil}, {nil, policytest.Denied()}} {
				bothFail(w, pol, failures[0], failures[1])
				for range 4 { // whichever is asked first
					w.Policies.Close()
					keys = append(keys, w.Open(pol.Current.ID))
				}
			}
			for _, key := range keys {
				if !key.Equal(keys[0]) {
					t.Error("the two vaults open different keys")
				}
			}
		}
		if got := fallbacks(w); len(got) > 0 {
			t.Errorf("the availability key was used: %q", got)
		}
	})
}

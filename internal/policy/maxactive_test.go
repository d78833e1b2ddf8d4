package policy_test

import (
	"fmt"
	"testing"

	"keyroll/api"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func TestTheFiftyFirstMailboxPolicyIsRefused(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := policytest.New(t, db)
		a, b := w.Vaults.Add("A", "k"), w.Vaults.Add("B", "k")
		a.Version, b.Version = "", ""
		create := func(of *policytest.World, name string) error {
			_, err := of.Create(policy.Definition{Kind: api.MailboxPolicy, Name: name, Primary: a, Secondary: b})
			return err
		}
		for i := range 50 {
			w.Must(create(w, fmt.Sprint("policy ", i+1)))
		}
		w.Vaults.Calls()
		policytest.Refuses(t, create(w, "policy 51"), api.Conflict)
		if len(w.Vaults.Calls()) != 0 {
			t.Error("a vault was asked for a policy that cannot be")
		}
		w.View(func(tx *store.Tx) error {
			all, err := w.Policies.List(w.Ctx, tx, w.Tenant)
			if len(all) != 51 { // with the service-managed one
				t.Errorf("%d policies", len(all))
			}
			return err
		})
		w.SitePolicy()
		w.Must(create(w.Neighbour(), "policy 51"))
	})
}

func TestEachGeoHasOneSitePolicyAndOneServiceManagedOne(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := policytest.New(t, db)
		const geo = 71
		managed := func(name string) error {
			_, err := w.Create(policy.Definition{Kind: api.ServiceManagedPolicy, Name: name, Geo: geo})
			return err
		}
		sites := func(name string, geo int64) error {
			_, err := w.Create(policy.Definition{Kind: api.SitePolicy, Name: name, Geo: geo,
				Primary: w.Vaults.Add("A-"+name, "k"), Secondary: w.Vaults.Add("B-"+name, "k")})
			return err
		}
		w.Must(managed("of the geo"))
		policytest.Refuses(t, managed("another"), api.Conflict)
		want := func(kind string, geo int64, name string) {
			t.Helper()
			w.View(func(tx *store.Tx) error {
				plain, err := w.Policies.Default(w.Ctx, tx, w.Tenant, kind, geo)
				if err != nil {
					return err
				}
				pol, err := w.Policies.ByID(w.Ctx, tx, w.Tenant, plain)
				if err == nil && pol.Name != name {
					t.Errorf("a %s of geo %d is under %q, want %q", kind, geo, pol.Name, name)
				}
				return err
			})
			w.InTx(func(tx *store.Tx) error {
				locked, key, err := w.Policies.LockDefault(w.Ctx, tx, w.Tenant, kind, geo)
				if err == nil && key.Policy != locked {
					t.Errorf("policy %d with a key of %d", locked, key.Policy)
				}
				return err
			})
		}
		want("site", 0, "Service-managed")
		want("site", geo, "of the geo")
		want("mailbox", 0, "Service-managed")
		w.Must(sites("Sites", 0))
		want("site", 0, "Sites")
		want("site", geo, "of the geo")
		w.Must(sites("Sites-EU", geo))
		want("site", geo, "Sites-EU")
		want("mailbox", 0, "Service-managed")
		policytest.Refuses(t, sites("more", geo), api.Conflict)
	})
}

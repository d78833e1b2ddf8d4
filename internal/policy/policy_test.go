package policy_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// each runs a test on both databases.
func each(t *testing.T, test func(w *policytest.World)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, db *store.DB) { test(policytest.New(t, db)) })
}

func (w finder) find(identity string) (policy.Policy, error) {
	var pol policy.Policy
	err := w.DB.ViewOnce(w.Ctx, func(tx *store.Tx) (err error) {
		pol, err = w.Policies.Find(w.Ctx, tx, w.Tenant, identity)
		return err
	})
	return pol, err
}

type finder struct{ *policytest.World }

func TestEachRootOfANewPolicyUnwrapsItsKey(t *testing.T) {
	each(t, func(w *policytest.World) {
		for _, pol := range []policy.Policy{w.MailboxPolicy("p"), w.SitePolicy()} {
			probes := w.Policies.Probe(w.Ctx, w.Tenant, pol.Current.ID)
			if len(probes) != 3 {
				t.Errorf("%s: %d roots, want 3", pol.Kind, len(probes))
			}
			for _, p := range probes {
				if p.Err != nil {
					t.Errorf("%s: by %s: %v", pol.Kind, p.Root, p.Err)
				}
			}
			if key := w.Open(pol.Current.ID); key.Equal(envelope.NewKey()) {
				t.Error("not a key")
			}
		}
	})
}

// Each root's own wrap is tested, not only that the policy key can be opened.
func TestProbeNamesTheRootWhoseWrapIsDamaged(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	pol := w.MailboxPolicy("p")
	w.Vaults.Fail("B-p", policytest.Denied())
	for _, p := range w.Policies.Probe(w.Ctx, w.Tenant, pol.Current.ID) {
		if (p.Err != nil) != strings.Contains(p.Root, "B-p") {
			t.Errorf("by %s: %v", p.Root, p.Err)
		}
	}
}

func TestPolicyIsFoundByNameInAnyCaseByGUIDAndByTheGUIDOfAnyRevision(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("USA_mailboxes")
		w.MailboxPolicy("other")
		var names []string
		add := func(p policy.Policy) {
			w.View(func(tx *store.Tx) error {
				rev, err := w.Policies.RevisionOf(w.Ctx, tx, w.Tenant, p.Current.ID)
				names = append(names, rev.GUID.String())
				return err
			})
		}
		add(pol)
		add(w.Refresh(pol, api.DepthRoot, false).Policy)
		add(w.Refresh(pol, api.DepthPolicy, false).Policy)
		if _, err := w.Policies.Retire(w.Ctx, w.Tenant, pol.ID); err != nil {
			t.Fatal(err)
		}
		names = append(names, "USA_mailboxes", "usa_MAILBOXES", pol.GUID.String())
		for _, name := range names {
			for _, spelled := range []string{name, strings.ToUpper(name)} {
				if got, err := (finder{w}).find(spelled); err != nil || got.ID != pol.ID {
					t.Errorf("%s is %q, %v", spelled, got.Name, err)
				}
			}
			_, err := finder{w.Neighbour()}.find(name)
			policytest.Refuses(t, err, api.NotFound)
		}
		for _, name := range []string{"", "USA_mailboxes ", "USA", "%", pol.GUID.String()[:35]} {
			_, err := finder{w}.find(name)
			policytest.Refuses(t, err, api.NotFound)
		}
	})
}

func TestPolicyNamesAreChecked(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	w.MailboxPolicy("taken")
	for name, code := range map[string]api.Code{
		"": api.InvalidArgument, " a": api.InvalidArgument, "a ": api.InvalidArgument, "a\nb": api.InvalidArgument, "a\x7f": api.InvalidArgument,
		strings.Repeat("a", 65): api.InvalidArgument, "6f9619ff-8b86-d011-b42d-00c04fc964ff": api.InvalidArgument,
		"{6F9619FF-8B86-D011-B42D-00C04FC964FF}": api.InvalidArgument, "6f9619ff8b86d011b42d00c04fc964ff": api.InvalidArgument,
		"taken": api.AlreadyExists, "TAKEN": api.AlreadyExists, "service-MANAGED": api.AlreadyExists,
	} {
		before := w.Dump()
		_, err := w.TryMailboxPolicy(name)
		policytest.Refuses(t, err, code)
		if w.Dump() != before {
			t.Errorf("the refusal of %q changed something", name)
		}
	}
}

func TestKeysOfAPolicyAreCheckedBeforeAnythingIsWritten(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	a, b, same := w.Vaults.Add("A", "k"), w.Vaults.Add("B", "k"), w.Vaults.Add("a", "k2")
	off := w.Vaults.Add("C", "k")
	w.Vaults.Disable(off)
	free := func(kv envelope.KeyVersion) envelope.KeyVersion { kv.Version = ""; return kv }
	for name, d := range map[string]struct {
		kind               api.PolicyKind
		primary, secondary envelope.KeyVersion
		code               api.Code
	}{
		"one vault, in two spellings":     {api.MailboxPolicy, free(a), free(same), api.InvalidArgument},
		"a version where none is to be":   {api.MailboxPolicy, free(a), b, api.InvalidArgument},
		"no version where one is to be":   {api.SitePolicy, a, free(b), api.InvalidArgument},
		"a disabled key":                  {api.MailboxPolicy, free(a), free(off), api.KeyUnusable},
		"a key that is not there":         {api.MailboxPolicy, free(a), envelope.KeyVersion{Vault: "B", Key: "none"}, api.VaultDenied},
		"a version that is not there":     {api.SitePolicy, a, envelope.KeyVersion{Vault: "B", Key: "k", Version: "ff"}, api.VaultDenied},
		"the same version twice, however": {api.SitePolicy, a, envelope.KeyVersion{Vault: "a", Key: "K", Version: a.Version}, api.InvalidArgument},
	} {
		before := w.Dump()
		_, err := w.Create(policy.Definition{Kind: d.kind, Name: "p", Primary: d.primary, Secondary: d.secondary})
		if !fail.Is(err, d.code) {
			t.Errorf("%s: %v (%s), want %s", name, err, fail.CodeOf(err), d.code)
		}
		if w.Dump() != before {
			t.Errorf("%s: the refusal changed something", name)
		}
	}
}

func TestFiftyFirstActivePolicyIsRefused(t *testing.T) {
	each(t, func(w *policytest.World) {
		var creators sync.WaitGroup
		for i := range 49 {
			w.MailboxPolicy(fmt.Sprint("p", i))
		}
		errs := make([]error, 3)
		for i := range errs {
			creators.Go(func() { _, errs[i] = w.TryMailboxPolicy(fmt.Sprint("last", i)) })
		}
		creators.Wait()
		made := 0
		for _, err := range errs {
			if err == nil {
				made++
				continue
			}
			policytest.Refuses(t, err, api.Conflict)
		}
		if made != 1 {
			t.Errorf("%d of three at once were made beside 49, want 1", made)
		}
		w.Neighbour().MailboxPolicy("another tenant's count is its own")
	})
}

func TestConcurrentBootstrapsMakeOneServiceManagedPolicy(t *testing.T) {
	each(t, func(w *policytest.World) {
		n := w.Neighbour()
		n.InTx(func(tx *store.Tx) error {
			for _, table := range []string{"revision", "policy_key", "policy"} {
				if _, err := tx.Exec(n.Ctx, `DELETE FROM `+table+` WHERE tenant = ?1`, n.Tenant); err != nil {
					return err
				}
			}
			return nil
		})
		var nodes sync.WaitGroup
		for range 4 {
			nodes.Go(func() {
				if err := n.Policies.Bootstrap(n.Ctx, n.Tenant, n.GUID); err != nil {
					t.Error(err)
				}
			})
		}
		nodes.Wait()
		n.View(func(tx *store.Tx) error {
			all, err := n.Policies.List(n.Ctx, tx, n.Tenant)
			if len(all) != 1 {
				t.Errorf("%d policies", len(all))
			}
			return err
		})
	})
}

func TestPoliciesOfAnotherTenantAreNotFound(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		w.Open(pol.Current.ID).Zero() // it is in the cache now
		other := w.Neighbour()
		w.Vaults.Calls()
		_, err := other.Policies.Open(w.Ctx, other.Tenant, pol.Current.ID, api.ByUser)
		policytest.Refuses(t, err, api.NotFound)
		stolen := pol
		stolen.Tenant, stolen.Current.Tenant = other.Tenant, other.Tenant
		_, err = w.ChangeOn(other.Policies, stolen, policy.Request{Depth: api.DepthPolicy})
		policytest.Refuses(t, err, api.NotFound)
		if n := len(w.Vaults.Calls()); n != 0 {
			t.Errorf("%d calls to a vault", n)
		}
		if retired, err := other.Policies.Retire(w.Ctx, other.Tenant, pol.ID); err != nil || retired != 0 {
			t.Errorf("retired %d, %v", retired, err)
		}
		if len(other.Usage()) != 0 {
			t.Error("another tenant's ledger has lines")
		}
		other.View(func(tx *store.Tx) error {
			_, err := other.Policies.ByID(w.Ctx, tx, other.Tenant, pol.ID)
			policytest.Refuses(t, err, api.NotFound)
			_, err = other.Policies.Current(w.Ctx, tx, other.Tenant, pol.ID)
			policytest.Refuses(t, err, api.NotFound)
			keys, err := other.Policies.Keys(w.Ctx, tx, other.Tenant, pol.ID)
			if len(keys) != 0 {
				t.Error("another tenant's policy keys are listed")
			}
			return err
		})
	})
}

func TestDefaultPolicyOfSitesIsTheRegisteredOneOrElseServiceManaged(t *testing.T) {
	each(t, func(w *policytest.World) {
		defaults := func() (site, mailbox int64) {
			w.InTx(func(tx *store.Tx) error {
				for kind, id := range map[string]*int64{"site": &site, "mailbox": &mailbox} {
					plain, err := w.Policies.Default(w.Ctx, tx, w.Tenant, kind, 0)
					if err != nil {
						return err
					}
					locked, key, err := w.Policies.LockDefault(w.Ctx, tx, w.Tenant, kind, 0)
					if err != nil {
						return err
					}
					if locked != plain || key.Policy != plain {
						t.Errorf("%s: Default is %d, LockDefault %d with a key of %d", kind, plain, locked, key.Policy)
					}
					*id = plain
				}
				return nil
			})
			return site, mailbox
		}
		var managed int64
		w.View(func(tx *store.Tx) (err error) {
			managed, err = w.Policies.ServiceManaged(w.Ctx, tx, w.Tenant)
			return err
		})
		if site, mailbox := defaults(); site != managed || mailbox != managed {
			t.Error("a container is covered by something else than the service-managed policy")
		}
		w.MailboxPolicy("p")
		pol := w.SitePolicy()
		if site, mailbox := defaults(); site != pol.ID || mailbox != managed {
			t.Error("a site is not covered by the registered policy, or a mailbox by another one")
		}
	})
}

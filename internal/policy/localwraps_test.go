package policy_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fault"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// vaultMadePolicy makes a policy on keys in external vaults, whose stored wraps
// the vaults made; those that made returns.
func vaultMadePolicy(w *policytest.World, name string, made func(kv envelope.KeyVersion, bundle []byte) []byte) policy.Policy {
	w.Helper()
	a, b := w.Vaults.Add("https://a-"+name+".vault.azure.net", "k"), w.Vaults.Add("https://b-"+name+".vault.azure.net", "k")
	versionless := func(kv envelope.KeyVersion) envelope.KeyVersion { kv.Version = ""; return kv }
	created, err := w.Create(policy.Definition{Kind: api.MailboxPolicy, Name: name, Primary: versionless(a), Secondary: versionless(b)})
	w.Must(err)
	key := w.Open(created.Current.ID)
	defer key.Zero()
	w.InTx(func(tx *store.Tx) error {
		bundle, err := w.Policies.BundleOf(w.Ctx, tx, w.Tenant, created.Current.ID, key)
		if err != nil {
			return err
		}
		return w.Policies.StoreVaultMade(w.Ctx, tx, w.Tenant, created.Current.ID, made(a, bundle), made(b, bundle))
	})
	w.Policies.Close()
	return created.Policy
}

func byVault(w *policytest.World) func(envelope.KeyVersion, []byte) []byte {
	return func(kv envelope.KeyVersion, bundle []byte) []byte {
		wrapped, err := w.Vaults.WrapPublic(kv, bundle)
		w.Must(err)
		return wrapped
	}
}

func vaultMade(w *policytest.World) (list []policy.VaultMade) {
	w.Helper()
	w.View(func(tx *store.Tx) (err error) {
		list, err = w.Policies.VaultMade(w.Ctx, tx, w.Tenant)
		return err
	})
	return list
}

func replacements(w *policytest.World) int64 {
	w.Helper()
	return w.Number(`SELECT count(*) FROM audit_entry WHERE tenant = ?1 AND operation = 'LocalWrap' AND detail LIKE 'replace the vault_s wrap of policy key %'`, w.Tenant)
}

func TestWrapsThatExternalVaultsMadeAreReplacedOnce(t *testing.T) {
	each(t, func(w *policytest.World) {
		own := w.MailboxPolicy("own")
		w.Exec(`UPDATE revision SET primary_local = 0, secondary_local = 0`) // as an earlier version stored them
		pol := vaultMadePolicy(w, "p", byVault(w))
		key := opensFromRoots(w, pol.Current)
		before := customerWraps(w)
		if left := vaultMade(w); len(left) != 2 || !strings.Contains(left[0].Key, "a-p.vault") || !strings.Contains(left[1].Key, "b-p.vault") {
			t.Errorf("before: %v", left)
		}
		replacer := w.Policies
		w.Must(replacer.ReplaceVaultMade(w.Ctx))
		if left := vaultMade(w); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		changed := 0
		for i, wrap := range customerWraps(w) {
			if !bytes.Equal(wrap, before[i]) {
				changed++
			}
		}
		if changed != 2 || replacements(w) != 2 {
			t.Errorf("%d wraps changed, and the audit log has %d; those of keyroll's own vaults stay", changed, replacements(w))
		}
		if !opensFromRoots(w, pol.Current).Equal(key) {
			t.Error("the policy key is another one")
		}
		opensFromRoots(w, own.Current)
		w.Vaults.Calls()
		w.Must(replacer.ReplaceVaultMade(w.Ctx))
		if calls := w.Vaults.Calls(); len(calls) != 0 {
			t.Errorf("a second pass asks the vaults: %v", calls)
		}
	})
}

func TestWrapOfAnUnavailableVaultIsKeptAndReplacedLater(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	pol := vaultMadePolicy(w, "p", byVault(w))
	w.Vaults.Fail("https://b-p.vault.azure.net", policytest.Away())
	replacer := w.Policies
	if err := replacer.ReplaceVaultMade(w.Ctx); err == nil || !strings.Contains(err.Error(), `policy "p"`) {
		t.Errorf("the pass says %v", err)
	}
	if left := vaultMade(w); len(left) != 1 || !strings.Contains(left[0].Key, "b-p") {
		t.Errorf("left: %v", left)
	}
	w.Vaults.Fail("https://b-p.vault.azure.net", nil)
	w.Must(replacer.ReplaceVaultMade(w.Ctx))
	if left := vaultMade(w); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	opensFromRoots(w, pol.Current)
}

// An attacker who can write only to the database cannot make the service replace a
// forged wrap, and so authenticate it.
func TestForgedWrapIsNotReplaced(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	pol := vaultMadePolicy(w, "p", byVault(w))
	forged, err := w.Vaults.WrapPublic(w.Vaults.Newest("https://a-p.vault.azure.net", "k"), make([]byte, 64))
	w.Must(err)
	w.Exec(`UPDATE revision SET wrap_primary = ?2 WHERE policy_key = ?1`, pol.Current.ID, forged)
	before := customerWraps(w)
	w.Vaults.Calls()
	err = w.Policies.ReplaceVaultMade(w.Ctx)
	if calls := w.Vaults.Calls(); err == nil || !strings.Contains(err.Error(), `policy "p"`) || len(calls) != 0 {
		t.Errorf("the pass says %v, and asked %v", err, calls)
	}
	for i, wrap := range customerWraps(w) {
		if !bytes.Equal(wrap, before[i]) {
			t.Errorf("wrap %d was replaced", i)
		}
	}
}

// A replacement that dies before or after its commit leaves a policy key that every
// root opens, and the next pass does what is left.
func TestAnInterruptedReplacementContinues(t *testing.T) {
	for _, point := range []string{"localwrap.before-commit", "localwrap.after-commit"} {
		t.Run(point, func(t *testing.T) {
			w := policytest.New(t, storetest.One(t))
			pol := vaultMadePolicy(w, "p", byVault(w))
			key := opensFromRoots(w, pol.Current)
			replacer := w.Policies
			died := func() (died bool) {
				fault.Set(func(name string) {
					if name == point {
						panic(point)
					}
				})
				defer fault.Set(nil)
				defer func() { died = recover() == any(point) }()
				_ = replacer.ReplaceVaultMade(w.Ctx)
				return false
			}()
			left := map[string]int{"localwrap.before-commit": 2, "localwrap.after-commit": 1}[point]
			if made := vaultMade(w); !died || len(made) != left {
				t.Errorf("died %t, left %v", died, made)
			}
			if !opensFromRoots(w, pol.Current).Equal(key) {
				t.Error("after the death the policy key is another one")
			}
			w.Must(replacer.ReplaceVaultMade(w.Ctx))
			if made := vaultMade(w); len(made) != 0 || replacements(w) != 2 || !opensFromRoots(w, pol.Current).Equal(key) {
				t.Errorf("left %v, %d replacements", made, replacements(w))
			}
		})
	}
}

// A change of the policy in the middle of a pass wins, and loses nothing.
func TestWrapReplacementDoesNotOverwriteAConcurrentChange(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	pol := vaultMadePolicy(w, "p", byVault(w))
	a := w.Vaults.Newest("https://a-p.vault.azure.net", "k")
	changed := false
	w.Vaults.Before = func(_ context.Context, c policytest.Call) error {
		if c.Op == "wrap" && !changed {
			changed = true
			w.Vaults.Add(a.Vault, a.Key)
			_, err := w.ChangeOn(w.Node(), w.Reload(pol), policy.Request{Depth: api.DepthRoot, AllGenerations: true})
			w.Must(err)
		}
		return nil
	}
	w.Must(w.Policies.ReplaceVaultMade(w.Ctx))
	if left := vaultMade(w); !changed || len(left) != 0 || replacements(w) != 0 {
		t.Errorf("changed %t, left %v, %d replacements", changed, left, replacements(w))
	}
	opensFromRoots(w, pol.Current)
}

// indulgent unwraps to itself what was never encrypted, as the vault that made it did.
type indulgent struct{ *policytest.FakeVaults }

func (i indulgent) Unwrap(ctx context.Context, tenant int64, id rootkey.Identity, kv envelope.KeyVersion, wrapped []byte) ([]byte, error) {
	if len(wrapped) == 64 {
		return bytes.Clone(wrapped), nil
	}
	return i.FakeVaults.Unwrap(ctx, tenant, id, kv, wrapped)
}

func TestStoredPlaintextIsReplacedAndReported(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	w.Configure(func(c *policy.Config) { c.Roots = indulgent{w.Vaults} })
	pol := vaultMadePolicy(w, "p", func(_ envelope.KeyVersion, bundle []byte) []byte { return bytes.Clone(bundle) })
	w.Must(w.Policies.ReplaceVaultMade(w.Ctx))
	for _, wrap := range customerWraps(w) {
		if len(wrap) != 256 {
			t.Errorf("a wrap of %d bytes is still stored", len(wrap))
		}
	}
	n := w.Number(`SELECT count(*) FROM audit_entry WHERE tenant = ?1 AND outcome = 'Damaged' AND detail LIKE '%it was no encryption%'`, w.Tenant)
	if n != 2 {
		t.Errorf("%d entries of the audit log say so", n)
	}
	opensFromRoots(w, pol.Current)
}

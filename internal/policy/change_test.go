package policy_test

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// keysOf returns the policy keys of a policy, the newest first.
func keysOf(w *policytest.World, pol policy.Policy) (keys []policy.KeyRow) {
	w.Helper()
	w.View(func(tx *store.Tx) (err error) {
		keys, err = w.Policies.Keys(w.Ctx, tx, w.Tenant, pol.ID)
		return err
	})
	return keys
}

func revisionOf(w *policytest.World, key policy.KeyRow) (rev policy.Revision) {
	w.Helper()
	w.View(func(tx *store.Tx) (err error) {
		rev, err = w.Policies.RevisionOf(w.Ctx, tx, w.Tenant, key.ID)
		return err
	})
	return rev
}

// opensFromRoots opens a policy key by its roots, without the cache.
func opensFromRoots(w *policytest.World, key policy.KeyRow) *envelope.Key {
	w.Helper()
	w.Policies.Close()
	return w.Open(key.ID)
}

func TestRefreshAtDepthPolicyMakesANewPolicyKeyAndKeepsTheOldOne(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		old, before := revisionOf(w, pol.Current), opensFromRoots(w, pol.Current)
		c := w.Refresh(pol, api.DepthPolicy, false)
		next := revisionOf(w, c.Policy.Current)
		if !c.NewKey || c.Rewrapped != 0 || c.Policy.Current.Generation != 2 || c.Policy.Current.ID == pol.Current.ID || c.Revision != next {
			t.Errorf("change is %+v", c)
		}
		if next.GUID == old.GUID || next.Primary.Version == old.Primary.Version || next.Secondary.Version == old.Secondary.Version {
			t.Errorf("revision %+v after %+v", next, old)
		}
		if w.Reload(pol).Current != c.Policy.Current {
			t.Error("the new policy key is not the current one")
		}
		if !opensFromRoots(w, pol.Current).Equal(before) {
			t.Error("the old policy key is another one")
		}
		if opensFromRoots(w, c.Policy.Current).Equal(before) {
			t.Error("the new policy key is the old one")
		}
	})
}

// The number of vault calls does not depend on a policy's history and number of pages.
func TestRefreshCallsTheVaultsAFixedNumberOfTimes(t *testing.T) {
	storetest.KeepAnswers(t)
	w := policytest.New(t, storetest.One(t))
	pol := w.MailboxPolicy("p")
	for round := range 6 {
		w.Put(w.Reload(pol).Current, envelope.ClassActive, 3)
		w.Put(w.Reload(pol).Current, envelope.ClassInactive, 2)
		w.Policies.Close()
		for _, c := range []struct {
			depth api.Depth
			want  map[string]int
		}{
			{api.DepthRoot, map[string]int{"read": 4, "wrap": 2, "unwrap": 3}}, // one unwrap opens the key that is wrapped again
			{api.DepthPolicy, map[string]int{"read": 4, "wrap": 2, "unwrap": 2}},
		} {
			w.Vaults.Calls()
			w.Refresh(pol, c.depth, false)
			if got := policytest.Count(w.Vaults.Calls()); !maps.Equal(got, c.want) {
				t.Errorf("round %d, depth %s: calls %v, want %v", round, c.depth, got, c.want)
			}
		}
	}
}

func TestRefreshWithoutANewVersionSaysSoAndChangesNothing(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		w.Put(pol.Current, envelope.ClassActive, 2)
		for _, depth := range []api.Depth{api.DepthPolicy, api.DepthRoot} {
			for _, all := range []bool{false, true} {
				before := w.Dump()
				_, err := w.Change(pol, policy.Request{Depth: depth, AllGenerations: all}, func(*store.Tx, policy.Change) error {
					t.Error("it came to the transaction")
					return nil
				})
				policytest.Refuses(t, err, api.NoNewVersion)
				if w.Dump() != before {
					t.Errorf("depth %s: something changed", depth)
				}
			}
		}
	})
}

func TestRefreshUsesTheOneKeyThatHasANewVersion(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	pol := w.MailboxPolicy("p")
	old := revisionOf(w, pol.Current)
	w.Vaults.Add("B-p", "k")
	c, err := w.Change(pol, policy.Request{Depth: api.DepthPolicy})
	w.Must(err)
	if c.Revision.Primary != old.Primary || c.Revision.Secondary == old.Secondary {
		t.Errorf("revision %+v after %+v", c.Revision, old)
	}
}

// Every failure stops a refresh before the first row is written.
func TestRefreshThatAVaultRefusesChangesNothing(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		for _, op := range []string{"read", "wrap", "unwrap"} {
			for _, vault := range []string{"A-p", "B-p"} {
				w.NewVersions(pol)
				w.Vaults.Before = func(_ context.Context, c policytest.Call) error {
					if c.Op == op && c.Vault == vault {
						return policytest.Away()
					}
					return nil
				}
				before := w.Dump("policy", "policy_key", "revision")
				for _, depth := range []api.Depth{api.DepthPolicy, api.DepthRoot} {
					_, err := w.Change(pol, policy.Request{Depth: depth})
					policytest.Refuses(t, err, api.VaultUnavailable)
				}
				if w.Dump("policy", "policy_key", "revision") != before {
					t.Errorf("%s by %s: something changed", op, vault)
				}
				w.Vaults.Before = nil
			}
		}
		off, _ := w.NewVersions(pol)
		w.Vaults.Disable(off)
		before := w.Dump()
		_, err := w.Change(pol, policy.Request{Depth: api.DepthPolicy})
		policytest.Refuses(t, err, api.KeyUnusable)
		if !strings.Contains(err.Error(), "disabled") || w.Dump() != before {
			t.Errorf("a disabled newest version: %v, changed %v", err, w.Dump() != before)
		}
	})
}

// A wrap that the vault does not unwrap to the key is detected before it is stored.
func TestWrapThatUnwrapsToAnotherKeyIsNeverWritten(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		for _, vault := range []string{"A-p", "B-p"} {
			w.NewVersions(pol)
			newest := w.Vaults.Newest(vault, "k")
			w.Vaults.Gives = func(c policytest.Call, plaintext []byte) []byte {
				other := bytes.Clone(plaintext)
				if c.KeyVersion == newest {
					other[0] ^= 1 // of the key; what it is bound to stays
				}
				return other
			}
			before := w.Dump("policy", "policy_key", "revision")
			for _, depth := range []api.Depth{api.DepthPolicy, api.DepthRoot} {
				_, err := w.Change(pol, policy.Request{Depth: depth})
				policytest.Refuses(t, err, api.KeyUnusable)
			}
			if w.Dump("policy", "policy_key", "revision") != before {
				t.Error("it was written")
			}
		}
	})
}

// An error of the function in the transaction rolls everything back.
func TestChangeCommitsOrFailsTogetherWithItsCallback(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		w.NewVersions(pol)
		before := w.Dump("policy", "policy_key", "revision")
		for _, depth := range []api.Depth{api.DepthPolicy, api.DepthRoot} {
			_, err := w.Change(pol, policy.Request{Depth: depth}, func(*store.Tx, policy.Change) error {
				return fail.New(api.Truncated, "refused by the test")
			})
			policytest.Refuses(t, err, api.Truncated)
		}
		if w.Dump("policy", "policy_key", "revision") != before {
			t.Error("something changed")
		}
	})
}

func TestExactlyOneOfTwoConcurrentRefreshesSucceedsAndNoKeyIsLost(t *testing.T) {
	each(t, func(w *policytest.World) {
		for _, depth := range []api.Depth{api.DepthPolicy, api.DepthRoot} {
			pol := w.MailboxPolicy("p-" + string(depth))
			w.NewVersions(pol)
			before := opensFromRoots(w, pol.Current)
			// Both have asked the vaults for all they need before either goes on.
			var both sync.WaitGroup
			var arrived atomic.Int32
			both.Add(2)
			w.Vaults.Before = func(_ context.Context, c policytest.Call) error {
				if c.Op == "read" && strings.HasPrefix(c.Vault, "B-") && arrived.Add(1) <= 2 {
					both.Done()
					both.Wait()
				}
				return nil
			}
			var errs [2]error
			var changes [2]policytest.Changed
			var callers sync.WaitGroup
			for i := range errs {
				callers.Go(func() { changes[i], errs[i] = w.Change(pol, policy.Request{Depth: depth}) })
			}
			callers.Wait()
			w.Vaults.Before = nil
			winner := 0
			if errs[0] != nil {
				winner = 1
			}
			if errs[winner] != nil || errs[1-winner] == nil {
				t.Fatalf("the two ended as %v and %v", errs[0], errs[1])
			}
			policytest.Refuses(t, errs[1-winner], api.Conflict)
			now := w.Reload(pol)
			if now.Current != changes[winner].Policy.Current {
				t.Error("the current policy key is not the winner's")
			}
			if keys := keysOf(w, pol); keys[0] != now.Current || len(keys) != int(now.Current.Generation) {
				t.Errorf("policy keys %v, of which %v is current", keys, now.Current)
			}
			for _, key := range keysOf(w, pol) {
				opened := opensFromRoots(w, key)
				if key == pol.Current && !opened.Equal(before) {
					t.Error("the policy key that was there is another one")
				}
			}
		}
	})
}

// A request that read the policy before another one changed it does not undo that
// change.
func TestChangeOfAnOutdatedPolicyIsRefused(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		w.Refresh(pol, api.DepthPolicy, false)
		w.NewVersions(pol)
		before := w.Dump("policy", "policy_key", "revision")
		_, err := w.Change(pol, policy.Request{Depth: api.DepthPolicy})
		policytest.Refuses(t, err, api.Conflict)
		if w.Dump("policy", "policy_key", "revision") != before {
			t.Error("something changed")
		}
	})
}

func TestDepthRootKeepsThePolicyKeyAndChangesTheRevision(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		row := w.Put(pol.Current, envelope.ClassActive, 2)
		old, before := revisionOf(w, pol.Current), opensFromRoots(w, pol.Current)
		pages := w.Dump("key_page", "policy", "policy_key")
		c := w.Refresh(pol, api.DepthRoot, false)
		now := revisionOf(w, pol.Current)
		if c.NewKey || c.Rewrapped != 1 || c.Policy.Current != pol.Current || c.Revision != now {
			t.Errorf("change is %+v", c)
		}
		if now.GUID == old.GUID || now.Primary.Version == old.Primary.Version {
			t.Errorf("revision %+v after %+v", now, old)
		}
		if w.Dump("key_page", "policy", "policy_key") != pages {
			t.Error("a page, a policy or a policy key changed")
		}
		key := opensFromRoots(w, pol.Current)
		if !key.Equal(before) {
			t.Error("the policy key is another one")
		}
		if _, err := envelope.OpenPage(key, row.EncryptionContext(), row.Body); err != nil {
			t.Error(err)
		}
		// The old wraps are gone from the row that still resolves its GUID.
		w.View(func(tx *store.Tx) error {
			var bytes int
			err := tx.QueryRow(w.Ctx, `SELECT LENGTH(wrap_primary) + LENGTH(wrap_secondary) + LENGTH(wrap_availability) FROM revision WHERE guid = ?1`,
				old.GUID.String()).Scan(&bytes)
			if bytes != 0 {
				t.Errorf("%d bytes of old wraps", bytes)
			}
			return err
		})
		if got, err := (finder{w}).find(old.GUID.String()); err != nil || got.ID != pol.ID {
			t.Errorf("the old GUID is %q, %v", got.Name, err)
		}
	})
}

func TestAllGenerationsReleasesAnOldVersionDespiteInactiveMailboxes(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		first := revisionOf(w, pol.Current).Primary
		stays := w.Put(pol.Current, envelope.ClassInactive, 5)
		before := opensFromRoots(w, pol.Current)
		second := w.Refresh(pol, api.DepthPolicy, false)
		verdictOf := func(kv envelope.KeyVersion) (u api.KeyUsage) {
			for _, u = range w.Usage() {
				if u.Vault == kv.Vault && u.Version == kv.Version {
					return u
				}
			}
			t.Fatalf("the ledger has no line for %v", kv)
			return u
		}
		w.Refresh(pol, api.DepthRoot, false) // only the current generation
		if u := verdictOf(first); u.Verdict != api.InUse || u.Inactive != 5 {
			t.Errorf("before: %+v", u)
		}
		if u := verdictOf(second.Revision.Primary); u.Verdict != api.SafeToRetire {
			t.Errorf("the version that the current generation has left: %+v", u)
		}
		w.Clock.Advance(time.Second)
		c := w.Refresh(pol, api.DepthRoot, true)
		if c.Rewrapped != 2 {
			t.Errorf("%d policy keys re-wrapped, want 2", c.Rewrapped)
		}
		if u := verdictOf(first); u.Verdict != api.SafeToRetire || u.Inactive != 0 || !u.Since.Equal(w.Clock.Now()) {
			t.Errorf("after: %+v", u)
		}
		if u := verdictOf(c.Revision.Primary); u.Verdict != api.InUse || u.Inactive != 5 {
			t.Errorf("the version that is now needed: %+v", u)
		}
		w.View(func(tx *store.Tx) error {
			now, err := keypage.Get(w.Ctx, tx, w.Tenant, stays.ID)
			if now.Parent != stays.Parent || now.Version != stays.Version {
				t.Error("the inactive mailboxes' page has moved")
			}
			return err
		})
		if !opensFromRoots(w, pol.Current).Equal(before) {
			t.Error("the old policy key is another one")
		}
	})
}

// Everything under policy keys is counted before a wrap is erased; with a class missing
// in that count keys would be lost.
func TestEveryClassExceptBlobsIsUnderPolicyKeys(t *testing.T) {
	for class := envelope.Class(1); !strings.HasPrefix(class.String(), "class "); class++ {
		if slices.Contains(policy.Classes, class) == (class == envelope.ClassBlob) {
			t.Errorf("class %v: %v", class, policy.Classes)
		}
	}
}

func TestRetiredKeyIsNotCachedAlthoughTheAnswerIsLost(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		old := pol.Current.ID
		w.Refresh(pol, api.DepthPolicy, false)
		w.Open(old).Zero()
		losing, lost := storetest.LoseAt(w.Ctx, 1)
		if _, err := w.Policies.Retire(losing, w.Tenant, pol.ID); !lost() || !fail.Is(err, api.Unavailable) {
			t.Fatalf("retire: %v", err)
		}
		if w.Policies.Cached(old) != nil {
			t.Error("what was retired is still cached")
		}
		if n, err := w.Policies.Retire(w.Ctx, w.Tenant, pol.ID); n != 0 || err != nil {
			t.Errorf("retired %d once more, %v", n, err)
		}
	})
}

func TestRetireErasesOnlyPolicyKeysThatAreNotInUse(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		retire := func(want int) {
			t.Helper()
			if n, err := w.Policies.Retire(w.Ctx, w.Tenant, pol.ID); err != nil || n != want {
				t.Errorf("retired %d, %v, want %d", n, err, want)
			}
		}
		retire(0) // the current one, with nothing under it
		for _, class := range policy.Classes {
			under := w.Reload(pol).Current
			row := w.Put(under, class, 1)
			before := opensFromRoots(w, under)
			w.Refresh(pol, api.DepthPolicy, false)
			retire(0)
			if !opensFromRoots(w, under).Equal(before) {
				t.Errorf("the policy key of class %v is another one", class)
			}
			w.InTx(func(tx *store.Tx) error {
				_, err := keypage.Delete(w.Ctx, tx, row)
				return err
			})
			w.Open(under.ID).Zero()
			retire(1)
			if w.Policies.Cached(under.ID) != nil {
				t.Error("what was retired is still cached")
			}
			_, err := w.Policies.Open(w.Ctx, w.Tenant, under.ID, api.ByUser)
			policytest.Refuses(t, err, api.NotFound)
			retire(0)
		}
		opensFromRoots(w, w.Reload(pol).Current).Zero()
	})
}

func TestUpdateReplacesOneKeyOfASitePolicy(t *testing.T) {
	each(t, func(w *policytest.World) {
		pol := w.SitePolicy()
		old := revisionOf(w, pol.Current)
		primary, secondary := w.NewVersions(pol)
		c, err := w.Change(pol, policy.Request{Act: policy.UpdatePrimary, Primary: primary, Depth: api.DepthPolicy})
		w.Must(err)
		if c.Revision.Primary != primary || c.Revision.Secondary != old.Secondary || !c.NewKey {
			t.Errorf("after the primary: %+v", c.Revision)
		}
		c, err = w.Change(c.Policy, policy.Request{Act: policy.UpdateSecondary, Secondary: secondary, Depth: api.DepthRoot})
		w.Must(err)
		if c.Revision.Primary != primary || c.Revision.Secondary != secondary || c.NewKey || c.Rewrapped != 1 {
			t.Errorf("after the secondary: %+v", c)
		}
		for _, key := range keysOf(w, pol) {
			opensFromRoots(w, key).Zero()
		}
		before := w.Dump()
		spelled := primary
		spelled.Vault, spelled.Key = strings.ToUpper(spelled.Vault), strings.ToUpper(spelled.Key)
		for _, same := range []envelope.KeyVersion{primary, spelled} {
			_, err = w.Change(c.Policy, policy.Request{Act: policy.UpdatePrimary, Primary: same, Depth: api.DepthPolicy})
			policytest.Refuses(t, err, api.NoNewVersion)
		}
		if w.Dump() != before {
			t.Error("an update to the version that stands there changed something")
		}
	})
}

func TestRefreshAndUpdateRefuseTheWrongKindOfPolicy(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	mail, sites := w.MailboxPolicy("p"), w.SitePolicy()
	var managed policy.Policy
	w.View(func(tx *store.Tx) error {
		id, err := w.Policies.ServiceManaged(w.Ctx, tx, w.Tenant)
		if err != nil {
			return err
		}
		managed, err = w.Policies.ByID(w.Ctx, tx, w.Tenant, id)
		return err
	})
	kv, _ := w.NewVersions(sites)
	for _, pol := range []policy.Policy{sites, managed} {
		_, err := w.Change(pol, policy.Request{Depth: api.DepthPolicy})
		policytest.Refuses(t, err, api.InvalidArgument)
	}
	for _, pol := range []policy.Policy{mail, managed} {
		_, err := w.Change(pol, policy.Request{Act: policy.UpdatePrimary, Primary: kv, Depth: api.DepthPolicy})
		policytest.Refuses(t, err, api.InvalidArgument)
	}
}

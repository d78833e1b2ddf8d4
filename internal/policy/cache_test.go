package policy_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store/storetest"
)

// bubble runs a test on SQLite in a synctest bubble.
func bubble(t *testing.T, test func(w *policytest.World)) {
	policytest.Bubble(t, func(t *testing.T) { test(policytest.New(t, storetest.One(t))) })
}

func unwraps(w *policytest.World) int { return policytest.Count(w.Vaults.Calls())["unwrap"] }

// A key that is no longer used is removed and zeroed after a lifetime; copies that
// callers have stay valid.
func TestPolicyKeyThatIsNotUsedForALifetimeIsZeroed(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		for key, lifetime := range map[int64]time.Duration{
			w.MailboxPolicy("p").Current.ID: 5 * time.Minute, w.SitePolicy().Current.ID: 4 * time.Hour} {
			copied := w.Open(key)
			kept := w.Policies.Cached(key)
			time.Sleep(lifetime - time.Second)
			if w.Policies.Cached(key) == nil {
				t.Error("the key is gone before its lifetime")
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if w.Policies.Cached(key) != nil || kept.Equal(kept) {
				t.Error("the key is still there after its lifetime")
			}
			unwraps(w)
			time.Sleep(24 * time.Hour)
			if n := unwraps(w); n != 0 {
				t.Errorf("%d unwraps of a key that is not used", n)
			}
			if !copied.Equal(w.Open(key)) {
				t.Error("a caller's copy went with the cache's key")
			}
			w.Policies.Close()
		}
	})
}

func TestServiceManagedPolicyKeyIsKeptWhileTheProcessRuns(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		managed := managedKey(w)
		w.Open(managed).Zero()
		kept := w.Policies.Cached(managed)
		opens := w.Availability.Opens.Load()
		time.Sleep(1000 * time.Hour)
		w.Open(managed).Zero()
		if n := w.Availability.Opens.Load() - opens; n != 0 {
			t.Errorf("%d more unwraps", n)
		}
		w.Policies.Close()
		if kept.Equal(kept) {
			t.Error("Close did not zero the key")
		}
	})
}

func TestConcurrentOpensShareOneUnwrap(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		unwraps(w)
		answer := make(chan struct{})
		w.Vaults.Before = func(ctx context.Context, _ policytest.Call) error {
			select {
			case <-answer:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		const callers = 16
		keys := make(chan *envelope.Key, callers)
		first, cancel := context.WithCancel(w.Ctx)
		go func() { w.Policies.Open(first, w.Tenant, pol.Current.ID, api.ByUser) }()
		synctest.Wait()
		cancel() // the first caller is cancelled: the others get their key nevertheless
		for range callers {
			go func() {
				key, err := w.Policies.Open(w.Ctx, w.Tenant, pol.Current.ID, api.ByUser)
				if err != nil {
					t.Error(err)
				}
				keys <- key
			}()
		}
		synctest.Wait()
		close(answer)
		one := <-keys
		for range callers - 1 {
			other := <-keys
			if !one.Equal(other) {
				t.Error("two callers have different keys")
			}
			other.Zero() // of its own bytes
		}
		if one.Equal(envelope.NewKey()) || !one.Equal(w.Open(pol.Current.ID)) {
			t.Error("a caller's copy was zeroed by another")
		}
		if n := unwraps(w); n != 1 {
			t.Errorf("%d unwraps, want 1", n)
		}
	})
}

// A failure is not cached: the next caller calls the vault again.
func TestFailureToOpenIsNotCached(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		pol := w.SitePolicy()
		w.Vaults.Fail("A-Sites", policytest.Away())
		w.Vaults.Fail("B-Sites", policytest.Away())
		_, err := w.Policies.Open(w.Ctx, w.Tenant, pol.Current.ID, api.ByUser)
		policytest.Refuses(t, err, api.VaultUnavailable)
		w.Vaults.Fail("A-Sites", policytest.Denied())
		_, err = w.Policies.Open(w.Ctx, w.Tenant, pol.Current.ID, api.ByUser)
		policytest.Refuses(t, err, api.VaultDenied)
		w.Vaults.Fail("A-Sites", nil)
		w.Open(pol.Current.ID).Zero()
	})
}

// A policy key whose wraps are erased while a vault opens it is not cached: it would
// outlive its wraps.
func TestPolicyKeyThatIsRetiredWhileItIsOpenedIsNotCached(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		pol := w.MailboxPolicy("p")
		w.Refresh(pol, api.DepthPolicy, false)
		answer := make(chan struct{})
		w.Vaults.Before = func(context.Context, policytest.Call) error { <-answer; return nil }
		opened := make(chan error)
		go func() {
			_, err := w.Policies.Open(w.Ctx, w.Tenant, pol.Current.ID, api.ByUser)
			opened <- err
		}()
		synctest.Wait()
		if n, err := w.Policies.Retire(w.Ctx, w.Tenant, pol.ID); err != nil || n != 1 {
			t.Fatalf("retired %d, %v", n, err)
		}
		close(answer)
		policytest.Refuses(t, <-opened, api.NotFound)
		if w.Policies.Cached(pol.Current.ID) != nil {
			t.Error("it is cached")
		}
	})
}

// The rules decide which vault is called, and when.
func TestUnwrapUsesTheStrategyOfTheProfile(t *testing.T) {
	bubble(t, func(w *policytest.World) {
		mail, sites := w.MailboxPolicy("p"), w.SitePolicy()
		w.Vaults.Fail("A-p", policytest.Away())
		for range 8 {
			w.Policies.Close()
			w.Open(mail.Current.ID).Zero()
		}
		for _, c := range w.Vaults.Calls() {
			if strings.HasSuffix(c.Vault, "-p") && c.Identity != "exchange" {
				t.Errorf("a mailbox policy's key was asked for by %s", c.Identity)
			}
		}
		w.Vaults.Before = func(ctx context.Context, c policytest.Call) error {
			if strings.HasPrefix(c.Vault, "A-") {
				<-ctx.Done() // a vault that hangs until it is given up
				return ctx.Err()
			}
			return nil
		}
		began := time.Now()
		w.Open(sites.Current.ID).Zero()
		if took := time.Since(began); took < 100*time.Millisecond || took > time.Second {
			t.Errorf("the secondary of a site policy answered after %v", took)
		}
		for _, c := range w.Vaults.Calls() {
			if c.Identity != "sharepoint" {
				t.Errorf("a site's key was asked for by %s", c.Identity)
			}
		}
		synctest.Wait()
	})
}

package service_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
)

// Mailboxes that are assigned while the purge is requested: each is either
// refused and stays readable where it was, or is part of the purge.
func TestMailboxesAssignedDuringAPurgeRequestArePurgedOrStayReadable(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		const n = 8
		name := func(i int) string { return fmt.Sprintf("m%d@contoso.com", i) }
		for i := range n {
			w.withMail(name(i), "")
		}
		w.withMail(alice, "p") // so that the policy key is in the cache
		w.revokeVaults("A-p", "B-p")
		var results [n]error
		var requested error
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() { results[i] = e(w.AssignMailbox(w.ctx, assign(name(i), "p"))) })
		}
		all.Go(func() { requested = e(w.RequestPurge(w.ctx, purgeOf("p"))) })
		all.Wait()
		w.Must(requested)
		w.approve("p")
		w.Must(w.carryOut())
		in := int64(1)
		for i, err := range results {
			read := w.ExportMail(w.ctx, mailbox(name(i)), io.Discard)
			switch {
			case err == nil:
				in++
				refused(t, read, api.Gone)
			case !fail.Is(err, api.Conflict) && !fail.Is(err, api.VaultDenied):
				t.Errorf("the assignment of %s: %v", name(i), err)
			case read != nil:
				t.Errorf("%s was refused and does not read: %v", name(i), read)
			}
		}
		p, err := w.ShowPurge(w.ctx, policyNamed("p"))
		w.Must(err)
		if p.Containers != in {
			t.Errorf("%d containers purged, want %d", p.Containers, in)
		}
	})
}

// A move out of the policy that has unwrapped its key before the purge, and writes after
// it, is refused.
func TestAMoveThatBeganBeforeAPurgeRestoresNothing(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.withMail(alice, "p")
		w.newKey("A-q")
		w.newKey("B-q")
		w.Must(e(w.CreatePolicy(w.ctx, newPolicy("q", keyURI("A-q"), keyURI("B-q")))))
		w.revokeVaults("A-p", "B-p") // its key stays in the cache
		w.Must(e(w.RequestPurge(w.ctx, purgeOf("p"))))
		w.approve("p")
		var once sync.Once
		w.Vaults.Before = func(_ context.Context, c policytest.Call) (err error) {
			if c.Vault == "A-q" || c.Vault == "B-q" { // the move opens the key that it goes to last
				once.Do(func() { err = w.carryOut() })
			}
			return err
		}
		refused(t, e(w.AssignMailbox(w.ctx, assign(alice, "q"))), api.Gone)
		if m := w.show(alice); m.Protection.Policy != "p" || m.Protection.Purged == nil {
			t.Errorf("it is under %+v", m.Protection)
		}
		refused(t, w.ExportMail(w.ctx, mailbox(alice), io.Discard), api.Gone)
	})
}

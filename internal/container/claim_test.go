package container_test

import (
	"slices"
	"testing"
	"time"

	"keyroll/internal/container"
	"keyroll/internal/lease"
	"keyroll/internal/store"
)

// Containers that a node has claimed belong to it while it lives, and can be claimed
// by other nodes as soon as it is dead.
func TestClaimIsValidWhileItsNodeRuns(t *testing.T) {
	each(t, func(w fixture) {
		c := w.mailbox("alice@contoso.com", 0)
		claim := func(node string) []int64 {
			w.Helper()
			ids, err := w.all.Claim(w.ctx, container.Claimable{Tenant: w.tenant, Page: c.Page, Due: container.DueKey(store.NewID()), Limit: 10}, node)
			w.must(err)
			return ids
		}
		w.must(w.db.InTx(w.ctx, func(tx *store.Tx) error {
			_, _, err := lease.Take(w.ctx, tx, lease.OfNode("a"), "a", time.Hour)
			return err
		}))
		for _, got := range [][]int64{claim("a"), claim("a")} {
			if !slices.Equal(got, []int64{c.ID}) {
				w.Errorf("a claims %v", got)
			}
		}
		if got := claim("b"); len(got) > 0 {
			w.Errorf("b claims %v of a", got)
		}
		w.must(w.db.InTx(w.ctx, func(tx *store.Tx) error { return lease.End(w.ctx, tx, "a") }))
		if got := claim("b"); !slices.Equal(got, []int64{c.ID}) {
			w.Errorf("b claims %v when a is dead", got)
		}
	})
}

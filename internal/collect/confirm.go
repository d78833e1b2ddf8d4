package collect

import (
	"context"
	"fmt"
	"slices"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// candidate is a blob that, according to the indexes, no row references.
type candidate struct {
	tenant, id int64
	item       int64 // the item that dropped it; 0: an orphan
}

// candidatesAtOnce is how many candidates one scan of the tables confirms.
const candidatesAtOnce = 100_000

// checkedTables are the tables on which the decisions of a collection depend.
var checkedTables = []string{"blob", "dropped", "unfinished", "setting"}

// add adds a candidate; if there are many, it confirms and deletes them.
func (c *Collection) add(ctx context.Context, one candidate) error {
	if c.candidates = append(c.candidates, one); len(c.candidates) < c.atOnce {
		return nil
	}
	return c.delete(ctx)
}

// delete confirms the candidates and deletes them. That no row references a blob was
// decided by indexes, and a deletion cannot be undone: so the tables are compared
// with their indexes, once per collection, and then read from end to end. No row
// ever starts to reference a candidate: a row that does contradicts the index. Then
// delete fails Damaged and deletes nothing.
func (c *Collection) delete(ctx context.Context) error {
	if len(c.candidates) == 0 {
		return nil
	}
	s := c.collector
	if !c.checked {
		if err := s.db.CheckTables(ctx, checkedTables...); err != nil {
			return fmt.Errorf("nothing is deleted: %w", err)
		}
		c.checked = true
	}
	if err := c.confirm(ctx); err != nil {
		return err
	}
	byTenant := map[int64][]int64{}
	var dropped []items.Blob
	for _, one := range c.candidates {
		byTenant[one.tenant] = append(byTenant[one.tenant], one.id)
		if one.item != 0 {
			dropped = append(dropped, items.Blob{ID: one.id, Item: one.item})
		}
	}
	for tenant, ids := range byTenant {
		if err := s.items.DeleteStored(ctx, tenant, ids); err != nil {
			return err
		}
	}
	fault.Point("collect.part-deleted")
	for part := range slices.Chunk(dropped, collectAtOnce) {
		if err := s.db.InTx(ctx, func(tx *store.Tx) error { return items.DeleteDropped(ctx, tx, part) }); err != nil {
			return err
		}
	}
	c.Removed += int64(len(c.candidates))
	c.candidates = c.candidates[:0]
	return nil
}

// confirm fails Damaged if the tables themselves have rows of the candidates.
func (c *Collection) confirm(ctx context.Context) error {
	type name struct{ tenant, id int64 }
	found := make(map[name]int64, len(c.candidates)) // the item that dropped it
	ids := make([]int64, len(c.candidates))
	for i, one := range c.candidates {
		found[name{one.tenant, one.id}], ids[i] = one.item, one.id
	}
	var first string
	wrong := map[name]bool{}
	look := func(table string, own bool) func(row store.Scanner) error {
		return func(row store.Scanner) error {
			var n name
			var item int64
			if err := row.Scan(&n.tenant, &n.id, &item); err != nil {
				return err
			}
			if by, is := found[n]; is && !(own && by == item) {
				if len(wrong) == 0 {
					first = fmt.Sprintf("blob %d of tenant %d, which table %s has", n.id, n.tenant, table)
				}
				wrong[n] = true
			}
			return nil
		}
	}
	// In this order: content that is deleted in the meantime moves from blob to dropped.
	if err := c.collector.db.Scan(ctx, store.ScanQuery{Table: "blob", Columns: "tenant, id, item", Column: "id", IDs: ids}, look("blob", false)); err != nil {
		return err
	}
	if err := c.collector.db.Scan(ctx, store.ScanQuery{Table: "dropped", Columns: "tenant, blob, item", Column: "blob", IDs: ids}, look("dropped", true)); err != nil {
		return err
	}
	if len(wrong) == 0 {
		return nil
	}
	cause := &Contradiction{}
	for n := range wrong {
		if !slices.Contains(cause.Tenants, n.tenant) {
			cause.Tenants = append(cause.Tenants, n.tenant)
		}
	}
	return fail.New(api.Damaged, "nothing is deleted: an index of the database omits %d blobs that rows reference; the first is %s", len(wrong), first).
		WithHint("docs/damage.md says how to rebuild an index from the rows").Because(cause)
}

// Contradiction is the cause of a refusal to delete blobs: an index lists them as
// unreferenced although rows reference them.
type Contradiction struct{ Tenants []int64 } // whose blobs they are

func (e *Contradiction) Error() string { return fmt.Sprintf("blobs of tenants %d", e.Tenants) }

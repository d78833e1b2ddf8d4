package collect

import (
	"context"
	"fmt"
	"slices"

	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// candidate is something that, according to the indexes, no row references.
type candidate struct {
	kind kind
	blob items.Blob // of an orphan or an emptied object: only its tenant, and the object as its id
}

type kind int

const (
	dropped kind = iota // a blob that an item dropped
	orphan              // an object
	emptied             // an object with nothing that is not dead
)

// object identifies an object in the blob store.
type object struct{ tenant, id int64 }

func objectOf(b items.Blob) object { return object{b.Tenant, b.ObjectID()} }

// candidatesAtOnce is how many candidates one scan of the tables confirms.
const candidatesAtOnce = 100_000

// checkedTables are the tables on which the decisions of a collection depend.
var checkedTables = []string{"blob", "dropped", "object", "unfinished", "setting"}

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
	d, err := c.newDeletion(ctx)
	if err != nil {
		return err
	}
	if err := d.confirm(ctx, s.db); err != nil {
		return err
	}
	for tenant, ids := range d.objectsByTenant() {
		if err := s.items.DeleteStored(ctx, tenant, ids); err != nil {
			return err
		}
	}
	fault.Point("collect.part-deleted")
	if err := s.forget(ctx, d); err != nil {
		return err
	}
	c.Removed += int64(len(d.objects))
	c.candidates = c.candidates[:0]
	return nil
}

// forget deletes the rows of dropped blobs, and then those of objects that were deleted.
func (s *Collector) forget(ctx context.Context, d *deletion) error {
	for tenant, blobs := range d.dropped {
		for part := range slices.Chunk(blobs, collectAtOnce) {
			if err := s.db.InTx(ctx, func(tx *store.Tx) error { return items.DeleteDropped(ctx, tx, tenant, part) }); err != nil {
				return err
			}
		}
	}
	fault.Point("collect.part-forgotten")
	for part := range slices.Chunk(d.emptied, collectAtOnce) {
		if err := s.db.InTx(ctx, func(tx *store.Tx) error { return items.DeleteEmptied(ctx, tx, part) }); err != nil {
			return err
		}
	}
	return nil
}

// Contradiction is the cause of a refusal to delete blobs: an index lists them as
// unreferenced although rows reference them.
type Contradiction struct{ Tenants []int64 } // whose blobs they are

func (e *Contradiction) Error() string { return fmt.Sprintf("blobs of tenants %d", e.Tenants) }

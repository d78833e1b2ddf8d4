package collect

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"keyroll/internal/items"
	"keyroll/internal/store"
)

// droppedAtOnce is how many dropped blobs one transaction checks.
const droppedAtOnce = 256

// dropped adds the blobs of deleted and replaced content that no row references any
// more to the candidates of the collection.
func (c *Collection) dropped(ctx context.Context, tenant int64) error {
	for after := (items.Blob{}); ; {
		var blobs []items.Blob
		err := c.collector.db.View(ctx, func(tx *store.Tx) (err error) {
			blobs, err = items.DroppedAfter(ctx, tx, tenant, after, droppedAtOnce)
			return err
		})
		if err != nil || len(blobs) == 0 {
			return err
		}
		after = blobs[len(blobs)-1]
		free, err := c.collector.unreferenced(ctx, tenant, blobs)
		if err != nil {
			return fmt.Errorf("look at dropped blobs: %w", err)
		}
		for _, b := range free {
			if err := c.add(ctx, candidate{kind: dropped, blob: b}); err != nil {
				return err
			}
		}
	}
}

// emptied adds the objects of which all is dead to the candidates of the collection, unless
// a copy is under way in the tenant.
func (c *Collection) emptied(ctx context.Context, tenant int64) error {
	for after := int64(0); ; {
		var objects []items.Object
		err := c.collector.db.View(ctx, func(tx *store.Tx) error {
			objects = nil
			busy, err := items.AnyCopying(ctx, tx, tenant)
			if err != nil || busy {
				return err
			}
			objects, err = items.EmptiedAfter(ctx, tx, tenant, after, droppedAtOnce)
			return err
		})
		if err != nil || len(objects) == 0 {
			return err
		}
		after = objects[len(objects)-1].ID
		for _, o := range objects {
			if err := c.add(ctx, candidate{kind: emptied, blob: items.Blob{Tenant: tenant, ID: o.ID}}); err != nil {
				return err
			}
		}
	}
}

// unreferenced returns, in id order, those of some dropped blobs that no row references.
// If two items dropped a blob, the later of the two decisions returns it.
//
// A row that references a blob is only ever copied from another row, which a copy
// reads in a snapshot that it takes after it has recorded itself in table unfinished
// (items.AnyCopying). So a blob that was dropped, that no row references, and that no copy
// under way may have read before, will never be referenced again. Rows are read after
// the table unfinished: a copy that has ended has stored its rows.
func (s *Collector) unreferenced(ctx context.Context, tenant int64, dropped []items.Blob) (free []items.Blob, err error) {
	slices.SortFunc(dropped, func(a, b items.Blob) int { return cmp.Compare(a.ID, b.ID) })
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		free = nil
		for _, b := range dropped { // only one transaction at a time decides about a blob
			if err := tx.Lock(ctx, b.ID, true); err != nil {
				return err
			}
		}
		if busy, err := items.AnyCopying(ctx, tx, tenant); err != nil || busy {
			return err
		}
		// Blobs that are being read are left for the next collection.
		waiting := slices.DeleteFunc(slices.Clone(dropped), func(b items.Blob) bool { return s.items.BeingRead(b.Item) })
		named, err := items.DeleteReferenced(ctx, tx, waiting)
		if err != nil {
			return err
		}
		if len(waiting) == 0 {
			return nil
		}
		// Another collection may have handled some of them in the meantime.
		still, err := items.StillDropped(ctx, tx, tenant, waiting[0].ID, waiting[len(waiting)-1].ID)
		if err != nil {
			return err
		}
		for i, b := range waiting {
			// Its place is the present one: until now it may have been moved.
			if now, is := still[items.DroppedBy{Blob: b.ID, Item: b.Item}]; is && !named[i] {
				free = append(free, now)
			}
		}
		return nil
	})
	return free, err
}

package content

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"keyroll/internal/store"
)

// droppedAtOnce is how many dropped blobs one transaction decides about.
const droppedAtOnce = 256

// dropped adds to the collection the blobs of deleted and replaced content that
// nothing names any more.
func (c *Collection) dropped(ctx context.Context, tenant int64) error {
	for after := (blobRow{}); ; {
		var blobs []blobRow
		err := c.contents.db.View(ctx, func(tx *store.Tx) (err error) {
			blobs, err = droppedAfter(ctx, tx, tenant, after, droppedAtOnce)
			return err
		})
		if err != nil || len(blobs) == 0 {
			return err
		}
		after = blobs[len(blobs)-1]
		unnamed, err := c.contents.unnamed(ctx, tenant, blobs)
		if err != nil {
			return fmt.Errorf("look at dropped blobs: %w", err)
		}
		for _, b := range unnamed {
			if err := c.add(ctx, candidate{tenant, b.ID, b.Item}); err != nil {
				return err
			}
		}
	}
}

// unnamed returns which of some dropped blobs, in id order, nothing names. Where
// two items dropped one blob, the later decision takes it.
//
// A row that names a blob is only ever copied from another one, which a copy
// reads in a snapshot that it takes once its mark is there (copying). So a blob
// that was dropped, that no row names, and that no copy under way may have read
// before, is named by none for ever. Rows are looked at after the mark: a copy
// that has ended has left its rows.
func (s *Contents) unnamed(ctx context.Context, tenant int64, dropped []blobRow) (unnamed []blobRow, err error) {
	slices.SortFunc(dropped, func(a, b blobRow) int { return cmp.Compare(a.ID, b.ID) })
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		unnamed = nil
		for _, b := range dropped { // one decision about a blob at a time
			if err := tx.Lock(ctx, b.ID, true); err != nil {
				return err
			}
		}
		if busy, err := copying(ctx, tx, tenant); err != nil || busy {
			return err
		}
		// What is being read waits for another collection.
		waiting := slices.DeleteFunc(slices.Clone(dropped), func(b blobRow) bool { return s.held.held(b.Item) })
		named, err := deleteNamed(ctx, tx, waiting)
		if err != nil {
			return err
		}
		if len(waiting) == 0 {
			return nil
		}
		// One that waits no longer was decided about by another collection meanwhile.
		still, err := stillDropped(ctx, tx, tenant, waiting[0].ID, waiting[len(waiting)-1].ID)
		if err != nil {
			return err
		}
		for i, b := range waiting {
			if !named[i] && still[droppedBy{b.ID, b.Item}] {
				unnamed = append(unnamed, b)
			}
		}
		return nil
	})
	return unnamed, err
}

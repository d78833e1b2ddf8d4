package content

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// Tidy takes away what is left of containers that are not there: of backups that
// have expired, of copies that failed or whose process died; and then the blobs
// that nothing names any more.
func (s *Contents) Tidy(ctx context.Context, tenant int64) error {
	var left []int64
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		left, err = s.unfinished(ctx, tx, tenant)
		return err
	})
	if err != nil {
		return fmt.Errorf("tidy up: %w", err)
	}
	var errs []error
	for _, container := range left {
		errs = append(errs, s.clear(ctx, tenant, container))
	}
	return errors.Join(append(errs, s.sweep(ctx, tenant))...)
}

// clear removes all rows of the items of a container that is not there.
func (s *Contents) clear(ctx context.Context, tenant, container int64) error {
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.Lock(ctx, container, true); err != nil { // insertCopied
			return err
		}
		return giveUpCopying(ctx, tx, container)
	})
	for more := true; more && err == nil; {
		err = s.db.InTx(ctx, func(tx *store.Tx) error {
			items, err := tx.IDs(ctx, selectItemIDs, tenant, container, s.batch)
			if err != nil {
				return err
			}
			if len(items) > 0 {
				if err := removeUpTo(ctx, tx, tenant, container, items[len(items)-1]); err != nil {
					return err
				}
			}
			pages, err := keypage.DeleteBlobPages(ctx, tx, tenant, container, s.batch)
			if err != nil {
				return err
			}
			if more = len(items)+int(pages) > 0; more {
				return nil
			}
			_, err = deleteUnfinished(ctx, tx, container, false)
			return err
		})
		if err == nil {
			fault.Point("clear.part-removed")
		}
	}
	if err != nil {
		return fmt.Errorf("clear container %d: %w", container, err)
	}
	return nil
}

// sweep lets go of every blob that waits for it.
func (s *Contents) sweep(ctx context.Context, tenant int64) error {
	for after := (blobRow{}); ; {
		var blobs []blobRow
		err := s.db.View(ctx, func(tx *store.Tx) (err error) {
			blobs, err = droppedAfter(ctx, tx, tenant, after, goAtOnce)
			return err
		})
		if err != nil || len(blobs) == 0 {
			return err
		}
		after = blobs[len(blobs)-1]
		if err := s.letGo(ctx, tenant, blobs); err != nil {
			return err
		}
	}
}

// replaced lets go of the blobs of a file that was replaced. What it cannot, the
// file's last reader does, or Tidy.
func (s *Contents) replaced(ctx context.Context, tenant int64, blobs []blobRow) {
	if len(blobs) > 0 {
		_ = s.letGo(context.WithoutCancel(ctx), tenant, blobs)
	}
}

// goAtOnce is how many blobs one transaction decides about.
const goAtOnce = 256

// letGo deletes dropped blobs that nothing names any more.
//
// A row that names a blob is only ever copied from another one, which a copy
// reads in a snapshot that it takes once its mark stands (copying). So a blob
// that was dropped, that no row names, and that no copy under way may have read
// before, is named by none for ever. Rows are looked at after the mark: a copy
// that has ended has left its rows.
func (s *Contents) letGo(ctx context.Context, tenant int64, dropped []blobRow) error {
	slices.SortFunc(dropped, func(a, b blobRow) int { return cmp.Compare(a.ID, b.ID) })
	for part := range slices.Chunk(dropped, goAtOnce) {
		gone, err := s.unnamed(ctx, tenant, part)
		if err != nil {
			return fmt.Errorf("let go of blobs: %w", err)
		}
		if err := s.deleteAll(ctx, tenant, idsOf(gone)); err != nil {
			return fmt.Errorf("let go of blobs: %w", err)
		}
		fault.Point("sweep.blobs-deleted")
		if err := s.db.InTx(ctx, func(tx *store.Tx) error { return deleteDropped(ctx, tx, gone) }); err != nil {
			return err
		}
	}
	return nil
}

// unnamed returns which of some dropped blobs, in id order, nothing names. Where
// two items dropped one blob, the later decision takes it.
func (s *Contents) unnamed(ctx context.Context, tenant int64, dropped []blobRow) (gone []blobRow, err error) {
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		gone = nil
		for _, b := range dropped { // one decision about a blob at a time
			if err := tx.Lock(ctx, b.ID, true); err != nil {
				return err
			}
		}
		if busy, err := copying(ctx, tx, tenant); err != nil || busy {
			return err
		}
		waiting := slices.DeleteFunc(slices.Clone(dropped), s.held.keep) // a kept one goes with its last reader
		named, err := deleteNamed(ctx, tx, waiting)
		if err != nil {
			return err
		}
		if len(waiting) == 0 {
			return nil
		}
		// One that waits no longer, somebody else has decided about meanwhile.
		still, err := stillDropped(ctx, tx, tenant, waiting[0].ID, waiting[len(waiting)-1].ID)
		if err != nil {
			return err
		}
		for i, b := range waiting {
			if !named[i] && still[droppedBy{b.ID, b.Item}] {
				gone = append(gone, b)
			}
		}
		return nil
	})
	return gone, err
}

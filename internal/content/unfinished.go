package content

import (
	"context"
	"errors"
	"fmt"

	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// DeleteLeftoverRows deletes the rows of items whose container does not exist: of backups that
// have expired, of copies that failed or whose process died. Their blobs are deleted
// by the next collection. It also deletes the state of imports that were not continued.
func (s *Contents) DeleteLeftoverRows(ctx context.Context, tenant int64) error {
	var left []int64
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		left, err = s.unfinishedNotCopying(ctx, tx, tenant)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete left-over rows: %w", err)
	}
	if err := s.confirmAbsent(ctx, tenant, left); err != nil {
		return fmt.Errorf("delete left-over rows: %w", err)
	}
	errs := []error{s.forgetImports(ctx, tenant)}
	for _, container := range left {
		errs = append(errs, s.clearContainer(ctx, tenant, container))
	}
	return errors.Join(errs...)
}

// clearContainer deletes all rows of the items of a container that does not exist.
func (s *Contents) clearContainer(ctx context.Context, tenant, container int64) error {
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.Lock(ctx, container, true); err != nil { // waits for insertCopiedItems
			return err
		}
		if _, err := tx.Exec(ctx, deleteTotal, tenant, container); err != nil {
			return err
		}
		return discardCopy(ctx, tx, container)
	})
	for more := true; more && err == nil; {
		err = s.db.InTx(ctx, func(tx *store.Tx) error {
			if err := tx.Lock(ctx, container, true); err != nil { // another node may clear it too
				return err
			}
			items, err := tx.IDs(ctx, selectItemIDs, tenant, container, s.batch)
			if err != nil {
				return err
			}
			if len(items) > 0 {
				blobs, err := blobsUpToItem(ctx, tx, tenant, container, items[len(items)-1])
				if err != nil {
					return err
				}
				if err := (itemRows{tenant, container, items, blobs}).remove(ctx, tx); err != nil {
					return err
				}
			}
			pages, err := keypage.DeleteBlobPages(ctx, tx, tenant, container, s.batch)
			if err != nil {
				return err
			}
			if more = len(items)+pages > 0; more {
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

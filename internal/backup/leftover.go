package backup

import (
	"context"
	"errors"
	"fmt"

	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// DeleteLeftoverRows deletes the rows of items whose container does not exist: of backups that
// have expired, of copies that failed or whose process died. Their blobs are deleted
// by the next collection.
func (s *Backups) DeleteLeftoverRows(ctx context.Context, tenant int64) error {
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
	var errs []error
	for _, container := range left {
		errs = append(errs, s.clearContainer(ctx, tenant, container))
	}
	return errors.Join(errs...)
}

// clearContainer deletes all rows of the items of a container that does not exist.
func (s *Backups) clearContainer(ctx context.Context, tenant, container int64) error {
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.Lock(ctx, container, true); err != nil { // waits for insertCopiedItems
			return err
		}
		if err := items.ForgetTotal(ctx, tx, tenant, container); err != nil {
			return err
		}
		return items.DiscardCopy(ctx, tx, container)
	})
	for more := true; more && err == nil; {
		err = s.db.InTx(ctx, func(tx *store.Tx) error {
			if err := tx.Lock(ctx, container, true); err != nil { // another node may clear it too
				return err
			}
			ids, err := items.FirstIDs(ctx, tx, tenant, container, s.sizes.Batch)
			if err != nil {
				return err
			}
			if len(ids) > 0 {
				blobs, err := items.BlobsUpTo(ctx, tx, tenant, container, ids[len(ids)-1])
				if err != nil {
					return err
				}
				if err := (items.Rows{Tenant: tenant, Container: container, Items: ids, Blobs: blobs}).Remove(ctx, tx); err != nil {
					return err
				}
			}
			pages, err := keypage.DeleteBlobPages(ctx, tx, tenant, container, s.sizes.Batch)
			if err != nil {
				return err
			}
			if more = len(ids)+pages > 0; more {
				return nil
			}
			_, err = items.DeleteUnfinished(ctx, tx, container, false)
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

// confirmAbsent fails Damaged if one of some containers, whose items are about to be
// deleted, exists. It compares the tables with their indexes first.
func (s *Backups) confirmAbsent(ctx context.Context, tenant int64, absent []int64) error {
	if len(absent) == 0 {
		return nil
	}
	if err := s.db.CheckTables(ctx, "container", "unfinished", "item", "blob", "key_page"); err != nil {
		return fmt.Errorf("nothing is deleted: %w", err)
	}
	return s.db.Scan(ctx, store.ScanQuery{Table: "container", Columns: "tenant, id", Column: "id", IDs: absent}, func(row store.Scanner) error {
		var of, id int64
		if err := row.Scan(&of, &id); err != nil {
			return err
		}
		if of != tenant {
			return nil
		}
		return store.Contradiction("container %d, whose items are to be deleted, exists", id)
	})
}

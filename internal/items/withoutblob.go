package items

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// WithoutBlob is an item whose first blob has no row: selectWithFirstBlob omits it.
type WithoutBlob struct{ ID int64 }

// Err returns the damage.
func (l WithoutBlob) Err() error {
	return fail.New(api.Damaged, "open item %d: blob number 0 is missing", l.ID)
}

const withoutBlobQuery = `SELECT i.id FROM item i WHERE i.tenant = ?1 AND i.container = ?2
	AND NOT EXISTS (SELECT 1 FROM blob b WHERE b.item = i.id AND b.sequence = 0)`

// ItemsWithoutBlob returns the items of a container without a first blob.
func (s *Store) ItemsWithoutBlob(ctx context.Context, c container.Container, which Which) (list []WithoutBlob, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		list, err = SelectWithoutBlob(ctx, tx, c.Tenant, c.ID, which)
		return err
	})
	return list, err
}

// SelectWithoutBlob is ItemsWithoutBlob in a transaction.
func SelectWithoutBlob(ctx context.Context, tx *store.Tx, tenant, container int64, which Which) ([]WithoutBlob, error) {
	query := withoutBlobQuery
	switch which {
	case Messages:
		query += ` AND i.path_hash IS NULL`
	case Files:
		query += ` AND i.path_hash IS NOT NULL`
	}
	list, err := store.Collect(ctx, tx, func(row store.Scanner) (l WithoutBlob, err error) {
		err = row.Scan(&l.ID)
		return l, err
	}, query+` ORDER BY i.id`, tenant, container)
	if err != nil {
		return nil, fmt.Errorf("read items of container %d: %w", container, err)
	}
	return list, nil
}

// Containers returns up to limit container ids above after to which items belong,
// whether or not the containers exist. It omits containers that a copy is filling and
// those that are being deleted.
func (s *Store) Containers(ctx context.Context, tx *store.Tx, tenant, after int64, limit int) ([]int64, error) {
	ids, err := tx.IDs(ctx, `SELECT DISTINCT i.container FROM item i WHERE i.tenant = ?1 AND i.container > ?2
		AND NOT EXISTS (SELECT 1 FROM unfinished u WHERE u.container = i.container) ORDER BY i.container LIMIT ?3`, tenant, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read items of tenant %d: %w", tenant, err)
	}
	return ids, nil
}

package content

import (
	"context"
	"errors"
	"fmt"

	"keyroll/internal/container"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

const (
	// selectStale selects blobs of a container with ids below ?3, after a given item
	// and sequence in the order of items and sequences.
	selectStale = `SELECT ` + blobColumns + ` FROM item i JOIN blob b ON b.item = i.id
		WHERE i.tenant = ?1 AND i.container = ?2 AND b.id < ?3 AND i.id >= ?4 AND (i.id > ?4 OR b.sequence > ?5)
		ORDER BY i.id, b.sequence LIMIT ?6`

	// selectBetween selects the items of a container in a range of ids, each with all
	// its blobs.
	selectBetween = `SELECT ` + itemColumns + `, ` + blobColumns + ` FROM item i JOIN blob b ON b.item = i.id
		WHERE i.tenant = ?1 AND i.container = ?2 AND i.id >= ?3 AND i.id <= ?4 ORDER BY i.id, b.sequence`

	countStale = `SELECT COUNT(*) FROM (SELECT b.id FROM item i JOIN blob b ON b.item = i.id
		WHERE i.tenant = ?1 AND i.container = ?2 AND b.id < ?3 LIMIT 1) AS stale`

	// replaceBlob finds a blob by another index than the one that listed it, like deleteBlob.
	replaceBlob = `UPDATE blob SET id = ?4, page = ?5 WHERE id = ?3 AND +item = ?1 AND +sequence = ?2`
	replaceItem = `UPDATE item SET version = ?4, metadata = ?5 WHERE tenant = ?1 AND id = ?2 AND version = ?3`
)

// NewestBlob returns the highest id that a blob has, 0 if there is none.
func NewestBlob(ctx context.Context, tx *store.Tx) (id int64, err error) {
	if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(id), 0) FROM blob`).Scan(&id); err != nil {
		return 0, fmt.Errorf("find the newest blob: %w", err)
	}
	return id, nil
}

// CountBytes sums the sizes of those blobs of some containers of a tenant that a roll
// re-encrypts, which are older than mark: an earlier roll may have re-encrypted part of a
// container.
func CountBytes(ctx context.Context, tx *store.Tx, tenant int64, containers store.Selection, mark int64) (n int64, err error) {
	in, args := containers.In([]any{tenant, mark})
	err = tx.QueryRow(ctx, `SELECT CAST(COALESCE(SUM(b.size), 0) AS BIGINT) FROM item i JOIN blob b ON b.item = i.id
		WHERE i.tenant = ?1 AND b.id < ?2 AND i.container IN `+in, args...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("sum blobs: %w", err)
	}
	return n, nil
}

// staleAfter returns up to unitBlobs blobs of a container that are older than mark,
// after one of them.
func staleAfter(ctx context.Context, tx *store.Tx, c container.Container, mark int64, after blobRow) (blobs []blobRow, err error) {
	blobs, err = store.Collect(ctx, tx, scanBlob, selectStale, c.Tenant, c.ID, mark, after.Item, after.Sequence, unitBlobs)
	if err != nil {
		return nil, fmt.Errorf("read blobs of container %d: %w", c.ID, err)
	}
	return blobs, nil
}

// itemWithBlobs is an item with all its blobs.
type itemWithBlobs struct {
	item  itemRow
	blobs []blobRow
}

// itemsBetween returns the items of a container in a range of ids, by id.
func itemsBetween(ctx context.Context, tx *store.Tx, c container.Container, from, to int64) (map[int64]*itemWithBlobs, error) {
	rows, err := tx.Query(ctx, selectBetween, c.Tenant, c.ID, from, to)
	if err != nil {
		return nil, fmt.Errorf("read items of container %d: %w", c.ID, err)
	}
	all := make(map[int64]*itemWithBlobs)
	for rows.Next() {
		var s itemScan
		var b blobRow
		if err := rows.Scan(append(s.targets(), b.targets()...)...); err != nil {
			return nil, errors.Join(fmt.Errorf("read items of container %d: %w", c.ID, err), rows.Close())
		}
		w := all[b.Item]
		if w == nil {
			w = &itemWithBlobs{item: s.item()}
			all[b.Item] = w
		}
		w.blobs = append(w.blobs, b)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read items of container %d: %w", c.ID, err)
	}
	return all, nil
}

// hasBlob reports whether the item still has a blob at its sequence; w may be nil.
func (w *itemWithBlobs) hasBlob(b blobRow) bool {
	return w != nil && b.Sequence < int64(len(w.blobs)) && w.blobs[b.Sequence].ID == b.ID
}

// writePlan writes the result of plan: it removes the old keys from their pages, inserts
// the pages of the new ones, and records each old blob as dropped.
func (u *unit) writePlan(ctx context.Context, tx *store.Tx, news []renewedItem, pages newPages, olds []blobRow) error {
	if err := removeKeys(ctx, tx, u.opened, olds); err != nil {
		return err
	}
	if err := keypage.Put(ctx, tx, pages.sealed...); err != nil {
		return err
	}
	var items, blobs, dropped [][]any
	for _, n := range news {
		items = append(items, []any{n.was.Tenant, n.was.ID, n.was.Version, n.item.Version, n.item.Metadata})
		for _, f := range n.blobs {
			blobs = append(blobs, []any{f.old.Item, f.old.Sequence, f.old.ID, f.row.ID, f.row.Page})
			dropped = append(dropped, []any{f.old.ID, f.old.Item, f.old.Tenant})
		}
	}
	for _, one := range []struct {
		statement string
		args      [][]any
	}{{replaceBlob, blobs}, {replaceItem, items}, {dropBlob, dropped}} {
		affected, err := tx.ExecMany(ctx, one.statement, one.args)
		if err != nil {
			return fmt.Errorf("replace blobs of container %d: %w", u.container.ID, err)
		}
		for _, n := range affected {
			if n != 1 {
				return store.ErrOutdated
			}
		}
	}
	return nil
}

// hasStale reports whether a container has a blob that is older than mark.
func hasStale(ctx context.Context, tx *store.Tx, c container.Container, mark int64) (bool, error) {
	var n int64
	if err := tx.QueryRow(ctx, countStale, c.Tenant, c.ID, mark).Scan(&n); err != nil {
		return false, fmt.Errorf("read blobs of container %d: %w", c.ID, err)
	}
	return n > 0, nil
}

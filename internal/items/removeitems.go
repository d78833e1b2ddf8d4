package items

import (
	"context"
	"fmt"

	"keyroll/internal/store"
)

// The rows of an item that are to be deleted are found by one index. Each is then
// deleted by another index, and the same condition is checked on the row itself: a +
// before a column prevents that an index is used for it. So a wrong index deletes no
// row of another item.
const (
	deleteItem = `DELETE FROM item WHERE id = ?1 AND +tenant = ?2 AND +container = ?3`
	deleteBlob = `DELETE FROM blob WHERE id = ?1 AND +tenant = ?2 AND +item = ?3 AND +sequence = ?4`
	dropBlobs  = `INSERT INTO dropped (blob, item, tenant, object, at, size)
		SELECT b.id, b.item, b.tenant, b.object, b.at, b.size FROM ROWS AS old CROSS JOIN blob b
		WHERE b.id = old.column1 AND +b.item = old.column2 AND +b.tenant = old.column3`

	isFile = `SELECT COUNT(*) FROM item WHERE id = ?1 AND +tenant = ?2 AND +container = ?3 AND path_hash = ?4`
)

// Rows are some items of a container, by their ids, and all their blobs.
type Rows struct {
	Tenant, Container int64
	Items             []int64
	Blobs             []Blob
}

// Remove deletes the rows of the items and of their blobs, and records the blobs as
// dropped: they are deleted when no other row references them. It fails Damaged if a
// row belongs to another item or container, and with store.ErrOutdated if a roll has
// replaced a blob since the rows were read.
func (r Rows) Remove(ctx context.Context, tx *store.Tx) error {
	var dropped [][]int64
	var rows, own [][]any
	for _, b := range r.Blobs {
		dropped = append(dropped, []int64{b.ID, b.Item, r.Tenant})
		rows = append(rows, []any{b.ID, r.Tenant, b.Item, b.Sequence})
	}
	for _, id := range r.Items {
		own = append(own, []any{id, r.Tenant, r.Container})
	}
	if err := lockPlaces(ctx, tx, false); err != nil {
		return err
	}
	if _, err := tx.ExecTogether(ctx, dropBlobs, dropped); err != nil {
		return fmt.Errorf("drop blobs of container %d: %w", r.Container, err)
	}
	if err := tx.DeleteRows(ctx, deleteBlob, rows, fmt.Sprintf("a blob of container %d", r.Container)); err != nil {
		return r.unlessReplaced(ctx, tx, err)
	}
	return tx.DeleteRows(ctx, deleteItem, own, fmt.Sprintf("an item of container %d", r.Container))
}

// unlessReplaced returns store.ErrOutdated if the index now has a later blob in place of one
// of the rows: a roll has committed it on PostgreSQL after the rows were read. Otherwise it
// returns err.
func (r Rows) unlessReplaced(ctx context.Context, tx *store.Tx, err error) error {
	for _, b := range r.Blobs {
		now, failed := currentBlob(ctx, tx, b)
		if failed != nil {
			return err
		}
		if now.ID > b.ID {
			return store.ErrOutdated
		}
	}
	return err
}

// ConfirmFile fails Damaged unless the row of the item id itself, and not only the
// index, has the path of the new item. Until tx ends no other transaction replaces it.
func ConfirmFile(ctx context.Context, tx *store.Tx, new Row, id int64) error {
	if err := tx.Lock(ctx, id, true); err != nil {
		return err
	}
	var n int64
	if err := tx.QueryRow(ctx, isFile, id, new.Tenant, new.Container, new.PathHash).Scan(&n); err != nil {
		return fmt.Errorf("read item %d: %w", id, err)
	}
	if n == 1 {
		return nil
	}
	now, err := FileID(ctx, tx, new.Tenant, new.Container, new.PathHash)
	if err == nil && now != id {
		err = store.ErrOutdated
	}
	if err == nil {
		err = store.Contradiction("item %d is the file at a path of container %d only according to the index", id, new.Container)
	}
	return err
}

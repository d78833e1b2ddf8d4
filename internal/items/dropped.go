package items

import (
	"context"
	"fmt"

	"keyroll/internal/store"
)

const droppedColumns = `blob, item, object, at, size`

// selectDropped selects dropped blobs, which wait to be deleted, after one of them.
const selectDropped = `SELECT ` + droppedColumns + ` FROM dropped WHERE tenant = ?1 AND (blob > ?2 OR blob = ?2 AND item > ?3) ORDER BY blob, item LIMIT ?4`

// countOthers counts the references to blob ?1 other than that of item ?2, which
// dropped it: items that have the blob, and other items that dropped it.
const countOthers = `(SELECT COUNT(*) FROM blob WHERE id = ?1) + (SELECT COUNT(*) FROM dropped other WHERE other.blob = ?1 AND other.item <> ?2)`

// DroppedBy is a blob and the item that dropped it.
type DroppedBy struct{ Blob, Item int64 }

// StillDropped returns the dropped blobs of a tenant with ids in a range.
func StillDropped(ctx context.Context, tx *store.Tx, tenant, from, to int64) (map[DroppedBy]Blob, error) {
	list, err := droppedOf(ctx, tx, tenant, `SELECT `+droppedColumns+` FROM dropped WHERE tenant = ?1 AND blob >= ?2 AND blob <= ?3`, tenant, from, to)
	still := make(map[DroppedBy]Blob, len(list))
	for _, b := range list {
		still[DroppedBy{b.ID, b.Item}] = b
	}
	return still, err
}

func droppedOf(ctx context.Context, tx *store.Tx, tenant int64, query string, args ...any) ([]Blob, error) {
	blobs, err := store.Collect(ctx, tx, func(row store.Scanner) (b Blob, err error) {
		b.Tenant = tenant
		err = row.Scan(&b.ID, &b.Item, &b.Object, &b.At, &b.Size)
		return b, err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read dropped blobs: %w", err)
	}
	return blobs, nil
}

// DeleteReferenced deletes the rows of those dropped blobs that something else
// references, and reports which blobs those are.
func DeleteReferenced(ctx context.Context, tx *store.Tx, blobs []Blob) ([]bool, error) {
	args := make([][]any, len(blobs))
	for i, b := range blobs {
		args[i] = []any{b.ID, b.Item}
	}
	affected, err := tx.ExecMany(ctx, `DELETE FROM dropped WHERE blob = ?1 AND item = ?2 AND `+countOthers+` > 0`, args)
	if err != nil {
		return nil, fmt.Errorf("forget dropped blobs that rows reference: %w", err)
	}
	named := make([]bool, len(blobs))
	for i, n := range affected {
		named[i] = n > 0
	}
	return named, nil
}

// DeleteDropped deletes the rows of dropped blobs of a tenant. What they have in objects
// with other blobs is dead from then on.
func DeleteDropped(ctx context.Context, tx *store.Tx, tenant int64, blobs []Blob) error {
	args := make([][]any, len(blobs))
	for i, b := range blobs {
		args[i] = []any{b.ID, b.Item}
	}
	deleted, err := tx.ExecMany(ctx, `DELETE FROM dropped WHERE blob = ?1 AND item = ?2`, args)
	if err != nil {
		return fmt.Errorf("forget dropped blobs: %w", err)
	}
	dead := map[int64]int64{} // by object
	for i, b := range blobs {
		if deleted[i] > 0 && b.SharesObject() { // another collection may have deleted the row
			dead[b.Object] += b.SealedSize()
		}
	}
	return addDeadBytes(ctx, tx, tenant, dead)
}

// DroppedAfter returns up to limit dropped blobs after one of them.
func DroppedAfter(ctx context.Context, tx *store.Tx, tenant int64, after Blob, limit int) ([]Blob, error) {
	return droppedOf(ctx, tx, tenant, selectDropped, tenant, after.ID, after.Item, limit)
}

// ReferencedObjects returns which of some objects of a tenant in the blob store rows
// reference.
func ReferencedObjects(ctx context.Context, tx *store.Tx, tenant int64, objects []int64) ([]int64, error) {
	in, args := store.InList(objects, []any{tenant})
	ids, err := tx.IDs(ctx, `SELECT id FROM blob WHERE id IN `+in+` AND tenant = ?1 AND object = 0
		UNION SELECT blob FROM dropped WHERE blob IN `+in+` AND tenant = ?1 AND object = 0
		UNION SELECT id FROM object WHERE tenant = ?1 AND id IN `+in, args...)
	if err != nil {
		return nil, fmt.Errorf("read which objects are named: %w", err)
	}
	return ids, nil
}

package content

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

const (
	selectDueIDs = `SELECT id FROM backup WHERE tenant = ?1 AND expires > 0 AND expires <= ?2 ORDER BY id LIMIT ?3`

	selectUnfinishedIDs = `SELECT container FROM unfinished WHERE tenant = ?1 AND container <> ?2 ORDER BY container`
	selectItemIDs       = `SELECT id FROM item WHERE tenant = ?1 AND container = ?2 ORDER BY id LIMIT ?3`
	selectBlobsUpTo     = `SELECT ` + blobColumns + ` FROM item i JOIN blob b ON b.item = i.id WHERE i.tenant = ?1 AND i.container = ?2 AND i.id <= ?3`
)

// selectDropped selects dropped blobs, which wait to be deleted, after one of them.
const selectDropped = `SELECT blob, item FROM dropped WHERE tenant = ?1 AND (blob > ?2 OR blob = ?2 AND item > ?3) ORDER BY blob, item LIMIT ?4`

// countOthers counts the references to blob ?1 other than that of item ?2, which
// dropped it: items that have the blob, and other items that dropped it.
const countOthers = `(SELECT COUNT(*) FROM blob WHERE id = ?1) + (SELECT COUNT(*) FROM dropped other WHERE other.blob = ?1 AND other.item <> ?2)`

func insertBackup(ctx context.Context, tx *store.Tx, b Backup) error {
	var expires int64
	if !b.Expires.IsZero() {
		expires = b.Expires.UnixMilli()
	}
	_, err := tx.Exec(ctx, `INSERT INTO backup (id, tenant, kind, expires) VALUES (?1, ?2, ?3, ?4)`, b.ID, b.Tenant, string(b.Of), expires)
	if err != nil {
		return fmt.Errorf("insert backup %d: %w", b.ID, err)
	}
	return nil
}

func deleteBackup(ctx context.Context, tx *store.Tx, tenant, id int64) error {
	if _, err := tx.Exec(ctx, `DELETE FROM backup WHERE tenant = ?1 AND id = ?2`, tenant, id); err != nil {
		return fmt.Errorf("delete backup %d: %w", id, err)
	}
	return nil
}

// selectWithTotals selects backups after an id, each with the total of its items.
var selectWithTotals = `SELECT b.id, b.kind, b.expires, ` + totalColumns("b.id") + `
	FROM backup b LEFT JOIN item_total t ON t.container = b.id AND t.tenant = b.tenant
	WHERE b.tenant = ?1 AND b.id > ?2 ORDER BY b.id LIMIT ?3`

// selectBackupsWithTotals returns the parts of backups that this package stores itself.
func selectBackupsWithTotals(ctx context.Context, tx *store.Tx, tenant, after int64, limit int) ([]ListedBackup, error) {
	list, err := store.Collect(ctx, tx, func(row store.Scanner) (b ListedBackup, err error) {
		var expires int64
		err = row.Scan(&b.ID, &b.Of, &expires, &b.Total.Items, &b.Total.Bytes)
		if expires != 0 {
			b.Expires = time.UnixMilli(expires)
		}
		return b, err
	}, selectWithTotals, tenant, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	return list, nil
}

// selectBackup returns the part of a backup that this package stores itself.
func selectBackup(ctx context.Context, tx *store.Tx, tenant, id int64) (b Backup, err error) {
	var expires int64
	err = tx.QueryRow(ctx, `SELECT kind, expires FROM backup WHERE tenant = ?1 AND id = ?2`, tenant, id).Scan(&b.Of, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return b, fail.New(api.Damaged, "backup %d has no row in table backup", id)
	}
	if err != nil {
		return b, fmt.Errorf("read backup %d: %w", id, err)
	}
	if expires != 0 {
		b.Expires = time.UnixMilli(expires)
	}
	return b, nil
}

// insertUnfinished records that a container does not exist although items of it do,
// or will soon.
func insertUnfinished(ctx context.Context, tx *store.Tx, tenant, container int64, copying bool) error {
	_, err := tx.Exec(ctx, `INSERT INTO unfinished (container, tenant, copying) VALUES (?1, ?2, ?3)`, container, tenant, copying)
	if err != nil {
		return fmt.Errorf("mark the copy into container %d: %w", container, err)
	}
	return nil
}

// deleteUnfinished undoes insertUnfinished and reports whether there was a row with
// this value of copying.
func deleteUnfinished(ctx context.Context, tx *store.Tx, container int64, copying bool) (bool, error) {
	n, err := tx.Exec(ctx, `DELETE FROM unfinished WHERE container = ?1 AND copying = ?2`, container, copying)
	if err != nil {
		return false, fmt.Errorf("unmark the copy into container %d: %w", container, err)
	}
	return n == 1, nil
}

// discardCopy records that the rows copied into a container are to be deleted.
func discardCopy(ctx context.Context, tx *store.Tx, container int64) error {
	if _, err := tx.Exec(ctx, `UPDATE unfinished SET copying = 0 WHERE container = ?1`, container); err != nil {
		return fmt.Errorf("discard the copy into container %d: %w", container, err)
	}
	return nil
}

// anyCopying reports whether any items of the tenant are being copied.
func anyCopying(ctx context.Context, tx *store.Tx, tenant int64) (is bool, err error) {
	var n int64
	if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM unfinished WHERE tenant = ?1 AND copying = 1`, tenant).Scan(&n); err != nil {
		return false, fmt.Errorf("read the copies under way: %w", err)
	}
	return n > 0, nil
}

// isCopying reports whether a copy is filling a container.
func isCopying(ctx context.Context, tx *store.Tx, container int64) (is bool, err error) {
	var n int64
	if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM unfinished WHERE container = ?1 AND copying = 1`, container).Scan(&n); err != nil {
		return false, fmt.Errorf("read whether container %d is being filled: %w", container, err)
	}
	return n > 0, nil
}

// droppedBy is a blob and the item that dropped it.
type droppedBy struct{ blob, item int64 }

// stillDropped returns the dropped blobs of a tenant with ids in a range.
func stillDropped(ctx context.Context, tx *store.Tx, tenant, from, to int64) (map[droppedBy]bool, error) {
	rows, err := tx.Query(ctx, `SELECT blob, item FROM dropped WHERE tenant = ?1 AND blob >= ?2 AND blob <= ?3`, tenant, from, to)
	if err != nil {
		return nil, fmt.Errorf("read dropped blobs: %w", err)
	}
	still := map[droppedBy]bool{}
	for rows.Next() {
		var d droppedBy
		if err := rows.Scan(&d.blob, &d.item); err != nil {
			return nil, errors.Join(fmt.Errorf("read dropped blobs: %w", err), rows.Close())
		}
		still[d] = true
	}
	return still, rows.Err()
}

// deleteReferenced deletes the rows of those dropped blobs that something else
// references, and reports which blobs those are.
func deleteReferenced(ctx context.Context, tx *store.Tx, blobs []blobRow) ([]bool, error) {
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

// blobsUpToItem returns the blobs of the items of a container up to an id.
func blobsUpToItem(ctx context.Context, tx *store.Tx, tenant, container, last int64) ([]blobRow, error) {
	blobs, err := store.Collect(ctx, tx, scanBlob, selectBlobsUpTo, tenant, container, last)
	if err != nil {
		return nil, fmt.Errorf("read blobs of container %d: %w", container, err)
	}
	return blobs, nil
}

// deleteDropped deletes the rows of dropped blobs.
func deleteDropped(ctx context.Context, tx *store.Tx, blobs []blobRow) error {
	args := make([][]any, len(blobs))
	for i, b := range blobs {
		args[i] = []any{b.ID, b.Item}
	}
	if _, err := tx.ExecMany(ctx, `DELETE FROM dropped WHERE blob = ?1 AND item = ?2`, args); err != nil {
		return fmt.Errorf("forget dropped blobs: %w", err)
	}
	return nil
}

// droppedAfter returns up to limit dropped blobs after one of them.
func droppedAfter(ctx context.Context, tx *store.Tx, tenant int64, after blobRow, limit int) (blobs []blobRow, err error) {
	blobs, err = store.Collect(ctx, tx, func(row store.Scanner) (b blobRow, err error) {
		b.Tenant = tenant
		err = row.Scan(&b.ID, &b.Item)
		return b, err
	}, selectDropped, tenant, after.ID, after.Item, limit)
	if err != nil {
		return nil, fmt.Errorf("read dropped blobs: %w", err)
	}
	return blobs, nil
}

package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

const selectDueIDs = `SELECT id FROM backup WHERE tenant = ?1 AND expires > 0 AND expires <= ?2 ORDER BY id LIMIT ?3`

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
var selectWithTotals = `SELECT b.id, b.kind, b.expires, ` + items.TotalColumns("b.id") + `
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

package items

import (
	"context"
	"fmt"

	"keyroll/internal/store"
)

// InsertUnfinished records that a container does not exist although items of it do,
// or will soon. If they are being copied, no blob is moved until that has ended.
func InsertUnfinished(ctx context.Context, tx *store.Tx, tenant, container int64, copying bool) error {
	if copying {
		if err := lockPlaces(ctx, tx, false); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `INSERT INTO unfinished (container, tenant, copying) VALUES (?1, ?2, ?3)`, container, tenant, copying)
	if err != nil {
		return fmt.Errorf("mark the copy into container %d: %w", container, err)
	}
	return nil
}

// DeleteUnfinished undoes InsertUnfinished and reports whether there was a row with
// this value of copying.
func DeleteUnfinished(ctx context.Context, tx *store.Tx, container int64, copying bool) (bool, error) {
	n, err := tx.Exec(ctx, `DELETE FROM unfinished WHERE container = ?1 AND copying = ?2`, container, copying)
	if err != nil {
		return false, fmt.Errorf("unmark the copy into container %d: %w", container, err)
	}
	return n == 1, nil
}

// Unfinished returns the ids of the containers of a tenant that InsertUnfinished recorded,
// without one of them.
func Unfinished(ctx context.Context, tx *store.Tx, tenant, except int64) ([]int64, error) {
	return tx.IDs(ctx, `SELECT container FROM unfinished WHERE tenant = ?1 AND container <> ?2 ORDER BY container`, tenant, except)
}

// DiscardCopy records that the rows copied into a container are to be deleted.
func DiscardCopy(ctx context.Context, tx *store.Tx, container int64) error {
	if _, err := tx.Exec(ctx, `UPDATE unfinished SET copying = 0 WHERE container = ?1`, container); err != nil {
		return fmt.Errorf("discard the copy into container %d: %w", container, err)
	}
	return nil
}

// AnyCopying reports whether any items of the tenant are being copied.
func AnyCopying(ctx context.Context, tx *store.Tx, tenant int64) (is bool, err error) {
	var n int64
	if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM unfinished WHERE tenant = ?1 AND copying = 1`, tenant).Scan(&n); err != nil {
		return false, fmt.Errorf("read the copies under way: %w", err)
	}
	return n > 0, nil
}

// IsCopying reports whether a copy is filling a container.
func IsCopying(ctx context.Context, tx *store.Tx, container int64) (is bool, err error) {
	var n int64
	if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM unfinished WHERE container = ?1 AND copying = 1`, container).Scan(&n); err != nil {
		return false, fmt.Errorf("read whether container %d is being filled: %w", container, err)
	}
	return n > 0, nil
}

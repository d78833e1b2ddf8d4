package roll

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// maxShownSkipped bounds how many skipped objects are shown with a roll.
const maxShownSkipped = 20

// recordSkipped records, once each, the objects that a roll skipped because they are
// damaged. An object is identified by its name, which has its kind and its id.
func (r *Roller) recordSkipped(ctx context.Context, ro Roll, damaged []damage) error {
	if len(damaged) == 0 {
		return nil
	}
	args := make([][]any, len(damaged))
	for i, d := range damaged {
		_, why, _ := fail.Public(d.err)
		args[i] = []any{ro.ID, ro.Tenant, d.what, why}
	}
	err := r.config.DB.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecMany(ctx, `INSERT INTO roll_skipped (roll, tenant, what, why) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (roll, what) DO NOTHING`, args)
		return err
	})
	if err != nil {
		return fmt.Errorf("record what roll %d skipped: %w", ro.ID, err)
	}
	return nil
}

// deleteSkipped deletes the record of what a roll skipped: the roll will try it
// again, or has finished.
func deleteSkipped(ctx context.Context, tx *store.Tx, ro Roll) error {
	if _, err := tx.Exec(ctx, `DELETE FROM roll_skipped WHERE tenant = ?1 AND roll = ?2`, ro.Tenant, ro.ID); err != nil {
		return fmt.Errorf("delete what roll %d skipped: %w", ro.ID, err)
	}
	return nil
}

// addSkipped adds to a what its roll skipped.
func addSkipped(ctx context.Context, tx *store.Tx, ro Roll, a *api.Roll) error {
	err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM roll_skipped WHERE tenant = ?1 AND roll = ?2`, ro.Tenant, ro.ID).Scan(&a.SkippedCount)
	if err != nil {
		return fmt.Errorf("count what roll %d skipped: %w", ro.ID, err)
	}
	if a.SkippedCount == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT what, why FROM roll_skipped WHERE tenant = ?1 AND roll = ?2 ORDER BY what LIMIT ?3`, ro.Tenant, ro.ID, maxShownSkipped)
	if err != nil {
		return fmt.Errorf("read what roll %d skipped: %w", ro.ID, err)
	}
	defer rows.Close()
	for rows.Next() {
		var what, why string
		if err := rows.Scan(&what, &why); err != nil {
			return fmt.Errorf("read what roll %d skipped: %w", ro.ID, err)
		}
		a.Skipped = append(a.Skipped, what+": "+why)
	}
	return rows.Err()
}

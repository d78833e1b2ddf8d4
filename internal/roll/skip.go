package roll

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// shownSkipped is how much of what a roll skipped is shown with it.
const shownSkipped = 20

// skip notes what a roll went past because it is damaged, each once. What it is
// named by is also what it is known by: its kind and its id.
func (r *Roller) skip(ctx context.Context, ro Roll, met []damage) error {
	if len(met) == 0 {
		return nil
	}
	args := make([][]any, len(met))
	for i, d := range met {
		_, why, _ := fail.Public(d.err)
		args[i] = []any{ro.ID, ro.Tenant, d.what, why}
	}
	err := r.DB.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecMany(ctx, `INSERT INTO roll_skipped (roll, tenant, what, why) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (roll, what) DO NOTHING`, args)
		return err
	})
	if err != nil {
		return fmt.Errorf("note what roll %d skipped: %w", ro.ID, err)
	}
	return nil
}

// forgetSkipped forgets what a roll went past: it is to be met again, or nothing
// is left of it.
func forgetSkipped(ctx context.Context, tx *store.Tx, ro Roll) error {
	if _, err := tx.Exec(ctx, `DELETE FROM roll_skipped WHERE tenant = ?1 AND roll = ?2`, ro.Tenant, ro.ID); err != nil {
		return fmt.Errorf("forget what roll %d skipped: %w", ro.ID, err)
	}
	return nil
}

// skipped tells a what its roll went past.
func skipped(ctx context.Context, tx *store.Tx, ro Roll, a *api.Roll) error {
	err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM roll_skipped WHERE tenant = ?1 AND roll = ?2`, ro.Tenant, ro.ID).Scan(&a.SkippedCount)
	if err != nil {
		return fmt.Errorf("count what roll %d skipped: %w", ro.ID, err)
	}
	if a.SkippedCount == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT what, why FROM roll_skipped WHERE tenant = ?1 AND roll = ?2 ORDER BY what LIMIT ?3`, ro.Tenant, ro.ID, shownSkipped)
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

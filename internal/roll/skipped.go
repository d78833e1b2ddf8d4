package roll

import (
	"context"
	"fmt"
	"strings"

	"keyroll/internal/store"
)

// mostNamed bounds how many of what could not be brought over are named.
const mostNamed = 20

// String says what does not open, and why, in one line.
func (d damage) String() string {
	return strings.Join(strings.Fields(fmt.Sprintf("%s does not open: %v", d.what, d.err)), " ")
}

// setSkipped notes what a roll could not bring over, in place of what it met before.
func setSkipped(ctx context.Context, tx *store.Tx, r Roll, list []damage) error {
	var named []string
	for _, d := range list[:min(len(list), mostNamed)] {
		named = append(named, d.String())
	}
	_, err := tx.Exec(ctx, `UPDATE roll SET skipped = ?3, skipped_count = ?4 WHERE tenant = ?1 AND id = ?2 AND (skipped <> ?3 OR skipped_count <> ?4)`,
		r.Tenant, r.ID, strings.Join(named, "\n"), len(list))
	return err
}

// skipped returns what a roll could not bring over: the first of it, and how many.
func skipped(ctx context.Context, tx *store.Tx, r Roll) (named []string, n int64, err error) {
	var text string
	if err := tx.QueryRow(ctx, `SELECT skipped, skipped_count FROM roll WHERE tenant = ?1 AND id = ?2`, r.Tenant, r.ID).Scan(&text, &n); err != nil {
		return nil, 0, fmt.Errorf("read what roll %d skipped: %w", r.ID, err)
	}
	if text != "" {
		named = strings.Split(text, "\n")
	}
	return named, n, nil
}

package roll

import (
	"context"
	"fmt"
	"math"

	"keyroll/api"
	"keyroll/internal/store"
)

// List returns up to limit of the tenant's rolls, the newest first; unless before is 0,
// those with lower ids.
func List(ctx context.Context, tx *store.Tx, tenant, before int64, limit int) ([]Roll, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	return query(ctx, tx, `tenant = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3`, tenant, before, limit)
}

// Listed is a roll in a list as the API shows it, or why it cannot be shown.
type Listed struct {
	ID   int64
	Roll api.Roll
	Err  error
}

// ProgressOf is Progress for some rolls of a tenant: two queries, and those that count
// what is left of each unfinished roll, or show what a roll skipped.
func (r *Roller) ProgressOf(ctx context.Context, tx *store.Tx, tenant int64, rolls []Roll) ([]Listed, error) {
	names, err := r.config.Policies.NamesOf(ctx, tx, tenant, nil)
	if err != nil {
		return nil, err
	}
	skipped, err := rollsThatSkipped(ctx, tx, tenant, rolls)
	if err != nil {
		return nil, err
	}
	list := make([]Listed, len(rolls))
	for i, ro := range rolls {
		a, err := r.progress(ctx, tx, ro, names.ByID)
		if err == nil && skipped[ro.ID] {
			err = addSkipped(ctx, tx, ro, &a)
		}
		list[i] = Listed{ro.ID, a, err}
	}
	return list, nil
}

// rollsThatSkipped returns those of some rolls that skipped something.
func rollsThatSkipped(ctx context.Context, tx *store.Tx, tenant int64, rolls []Roll) (map[int64]bool, error) {
	skipped := map[int64]bool{}
	if len(rolls) == 0 {
		return skipped, nil
	}
	ids := make([]int64, len(rolls))
	for i, ro := range rolls {
		ids[i] = ro.ID
	}
	in, args := store.InList(ids, []any{tenant})
	found, err := tx.IDs(ctx, `SELECT DISTINCT roll FROM roll_skipped WHERE tenant = ?1 AND roll IN `+in, args...)
	if err != nil {
		return nil, fmt.Errorf("read which rolls skipped something: %w", err)
	}
	for _, id := range found {
		skipped[id] = true
	}
	return skipped, nil
}

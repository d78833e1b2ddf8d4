package roll

import (
	"context"
	"fmt"
	"math"

	"keyroll/api"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// List returns up to limit of the tenant's rolls, the newest first; unless before is 0,
// those with lower ids.
func List(ctx context.Context, tx *store.Tx, tenant, before int64, limit int) ([]Roll, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	return list(ctx, tx, `tenant = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3`, tenant, before, limit)
}

// Newest returns the newest roll of each of some policies, and the newest one that moves
// containers from each of some sources to another policy: with one query, the newest
// first.
func Newest(ctx context.Context, tx *store.Tx, tenant int64, policies, sources []int64) ([]Roll, error) {
	newest := func(column string, ids []int64, args []any) (string, []any) {
		if len(ids) == 0 {
			ids = []int64{-1} // nothing has this id
		}
		in, args := store.InList(ids, args)
		return `id IN (SELECT MAX(id) FROM roll WHERE tenant = ?1 AND ` + column + ` IN ` + in + ` GROUP BY ` + column + `)`, args
	}
	to, args := newest("policy", policies, []any{tenant})
	from, args := newest("source", sources, args)
	return list(ctx, tx, `tenant = ?1 AND (`+to+` OR `+from+`) ORDER BY id DESC`, args...)
}

func list(ctx context.Context, tx *store.Tx, where string, args ...any) ([]Roll, error) {
	rows, err := store.Collect(ctx, tx, func(row store.Scanner) (r Roll, err error) {
		var skipped bool
		r, err = scan(row, &skipped)
		r.skipped = skipped
		return r, err
	}, `SELECT `+columns+`, EXISTS (SELECT 1 FROM roll_skipped s WHERE s.roll = roll.id AND s.tenant = roll.tenant) FROM roll WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("list rolls: %w", err)
	}
	return rows, nil
}

// Listed is a roll in a list as the API shows it, or why it cannot be shown.
type Listed struct {
	Roll
	Shown api.Roll
	Err   error
}

// ProgressOf is Progress for some rolls of a list, with the tenant's policies. It makes
// only queries that count what is left of each unfinished roll, or show what a roll
// skipped.
func (r *Roller) ProgressOf(ctx context.Context, tx *store.Tx, names policy.Names, rolls []Roll) []Listed {
	shown := make([]Listed, len(rolls))
	for i, ro := range rolls {
		a, err := r.progress(ctx, tx, ro, names.ByID)
		if err == nil && ro.skipped {
			err = addSkipped(ctx, tx, ro, &a)
		}
		shown[i] = Listed{ro, a, err}
	}
	return shown
}

package store_test

import (
	"context"
	"errors"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// note is a prepared change that writes one row, and records how it was used.
type note struct {
	prepared int
	outcomes []store.Outcome
	fails    error // of Prepare
}

func (n *note) Prepare(context.Context) error { n.prepared++; return n.fails }

func (n *note) Close(_ context.Context, o store.Outcome) { n.outcomes = append(n.outcomes, o) }

func (n *note) write(ctx context.Context, tx *store.Tx, name string) error {
	_, err := tx.Exec(ctx, `INSERT INTO setting (name, value) VALUES (?1, '')`, name)
	return err
}

func TestPreparedChangeIsClosedOnceWithItsOutcome(t *testing.T) {
	refused := errors.New("refused")
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		outdated := func(times int) func(ctx context.Context, n *note, tx *store.Tx) error {
			return func(ctx context.Context, n *note, tx *store.Tx) error {
				if err := n.write(ctx, tx, "outdated"); err != nil || n.prepared == times {
					return err
				}
				return store.ErrOutdated
			}
		}
		for name, test := range map[string]struct {
			commit   func(ctx context.Context, n *note, tx *store.Tx) error
			fails    error // of Prepare
			dry      bool
			loses    bool // the answer of the commit
			prepared int
			outcome  store.Outcome
			ok       func(err error) bool
			rows     int64
		}{
			"committed": {func(ctx context.Context, n *note, tx *store.Tx) error { return n.write(ctx, tx, "row") }, nil, false, false, 0, store.Committed, isNil, 1},
			"refused after it has written": {func(ctx context.Context, n *note, tx *store.Tx) error {
				return errors.Join(n.write(ctx, tx, "row"), refused)
			}, nil, false, false, 0, store.NotCommitted, is(refused), 0},
			"a dry run":                {func(ctx context.Context, n *note, tx *store.Tx) error { return n.write(ctx, tx, "row") }, nil, true, false, 0, store.NotCommitted, isNil, 0},
			"a dry run that fails":     {func(context.Context, *note, *store.Tx) error { return refused }, nil, true, false, 0, store.NotCommitted, is(refused), 0},
			"outdated twice":           {outdated(2), nil, false, false, 2, store.Committed, isNil, 1},
			"outdated each time":       {outdated(-1), nil, false, false, 9, store.NotCommitted, hasCode(api.Conflict), 0},
			"outdated, then refused":   {outdated(-1), refused, false, false, 1, store.NotCommitted, is(refused), 0},
			"the answer is lost":       {func(ctx context.Context, n *note, tx *store.Tx) error { return n.write(ctx, tx, "row") }, nil, false, true, 0, store.Unknown, store.IsAnswerLost, 1},
			"outdated in a dry run":    {outdated(1), nil, true, false, 1, store.NotCommitted, isNil, 0},
			"the change has no tables": {func(context.Context, *note, *store.Tx) error { return nil }, nil, false, false, 0, store.Committed, isNil, 0},
		} {
			run := func(t *testing.T, commit func(ctx context.Context, n *note) error) {
				ctx, n := t.Context(), &note{fails: test.fails}
				db.SetForTests(store.ForTests{RunTwice: !test.loses, LoseAnswer: func(context.Context) bool { return test.loses }})
				err := commit(ctx, n)
				if !test.ok(err) {
					t.Errorf("it ends with %v", err)
				}
				if n.prepared != test.prepared || len(n.outcomes) != 1 || n.outcomes[0] != test.outcome {
					t.Errorf("prepared again %d times, closed with %v; want %d times and %v", n.prepared, n.outcomes, test.prepared, test.outcome)
				}
				db.SetForTests(store.ForTests{})
				var rows int64
				err = db.InTx(ctx, func(tx *store.Tx) (err error) {
					rows, err = tx.Exec(ctx, `DELETE FROM setting WHERE name = 'row' OR name = 'outdated'`)
					return err
				})
				if err != nil || rows != test.rows {
					t.Errorf("%d rows were written, want %d; %v", rows, test.rows, err)
				}
			}
			t.Run(name, func(t *testing.T) {
				commit := db.Commit
				if test.dry {
					commit = db.DryRun
				}
				run(t, func(ctx context.Context, n *note) error {
					return commit(ctx, n, func(tx *store.Tx) error { return test.commit(ctx, n, tx) })
				})
			})
			if test.dry {
				continue
			}
			t.Run(name+", shared", func(t *testing.T) {
				run(t, func(ctx context.Context, n *note) error {
					return db.CommitShared(ctx, n, 1, func(ctx context.Context, tx *store.Tx) error { return test.commit(ctx, n, tx) })
				})
			})
		}
		if err := db.Commit(t.Context(), nil, func(*store.Tx) error { return nil }); err != nil {
			t.Error(err)
		}
	})
}

func isNil(err error) bool { return err == nil }

func is(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }

func hasCode(code api.Code) func(error) bool {
	return func(err error) bool { return fail.Is(err, code) }
}

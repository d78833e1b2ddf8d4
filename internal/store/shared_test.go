package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// appendRow appends a row of table setting.
func appendRow(ctx context.Context, db *store.DB, name string) error {
	return db.Append(ctx, func(ctx context.Context, tx *store.Tx) error { return insertSetting(ctx, tx, name) })
}

func insertSetting(ctx context.Context, tx *store.Tx, name string) error {
	_, err := tx.Exec(ctx, `INSERT INTO setting (name, value) VALUES (?1, '')`, name)
	return err
}

// hasSetting reports whether table setting has a row.
func hasSetting(t *testing.T, db *store.DB, name string) bool {
	t.Helper()
	var n int64
	err := db.View(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT COUNT(*) FROM setting WHERE name = ?1`, name).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

// shares runs some calls of Append so that they share one transaction: they begin while
// that of another call is held open. It returns their errors.
func shares(t *testing.T, db *store.DB, calls ...func() error) []error {
	t.Helper()
	begun, end := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	once := sync.OnceFunc(func() { close(begun); <-end })
	all.Go(func() {
		err := db.Append(t.Context(), func(context.Context, *store.Tx) error { once(); return nil })
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	errs := make([]error, len(calls))
	for i, call := range calls {
		all.Go(func() { errs[i] = call() })
	}
	store.AwaitAppends(db, len(calls))
	close(end)
	all.Wait()
	return errs
}

func TestAppendsThatArriveDuringACommitShareTheNextOne(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{}) // no transaction is run twice
		var together atomic.Pointer[store.Tx]
		calls := make([]func() error, 20)
		for i := range calls {
			calls[i] = func() error {
				return db.Append(t.Context(), func(ctx context.Context, tx *store.Tx) error {
					if !together.CompareAndSwap(nil, tx) && together.Load() != tx {
						t.Error("two of the calls ran in two transactions")
					}
					return insertSetting(ctx, tx, fmt.Sprint("shared-", i))
				})
			}
		}
		for i, err := range shares(t, db, calls...) {
			if err != nil || !hasSetting(t, db, fmt.Sprint("shared-", i)) {
				t.Errorf("call %d ended with %v, and its row exists: %v", i, err, err == nil)
			}
		}
	})
}

func TestAFailedAppendAffectsNoOther(t *testing.T) {
	refused := errors.New("refused")
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		gone, leave := context.WithCancel(t.Context())
		errs := shares(t, db,
			func() error { return appendRow(t.Context(), db, "before") },
			func() error {
				return db.Append(t.Context(), func(ctx context.Context, tx *store.Tx) error {
					return errors.Join(insertSetting(ctx, tx, "refused"), refused)
				})
			},
			func() error {
				return db.Append(t.Context(), func(ctx context.Context, tx *store.Tx) error {
					_, err := tx.Exec(ctx, `INSERT INTO nowhere (name) VALUES ('')`)
					return err
				})
			},
			func() (err error) {
				defer func() { err = fmt.Errorf("panic: %v", recover()) }()
				return db.Append(t.Context(), func(context.Context, *store.Tx) error { panic("at the disco") })
			},
			func() error {
				return db.Append(gone, func(ctx context.Context, tx *store.Tx) error {
					leave()
					return insertSetting(ctx, tx, "gone")
				})
			},
			func() error { return appendRow(t.Context(), db, "after") },
		)
		if errs[0] != nil || errs[5] != nil || !hasSetting(t, db, "before") || !hasSetting(t, db, "after") {
			t.Errorf("the calls that do not fail end with %v and %v", errs[0], errs[5])
		}
		if !errors.Is(errs[1], refused) || hasSetting(t, db, "refused") {
			t.Errorf("the call that fails ends with %v", errs[1])
		}
		if errs[2] == nil || errs[3] == nil || errs[3].Error() != "panic: at the disco" {
			t.Errorf("a wrong statement ends with %v, a panic with %v", errs[2], errs[3])
		}
		if gone := errs[4]; hasSetting(t, db, "gone") != (gone == nil) || gone != nil && !errors.Is(gone, context.Canceled) {
			t.Errorf("the call whose caller has gone ends with %v", gone)
		}
	})
}

func TestAppendsAreCommittedAfterSomeCallersHaveGone(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		gone, leave := context.WithCancel(t.Context())
		errs := shares(t, db,
			func() error {
				return db.Append(gone, func(ctx context.Context, tx *store.Tx) error {
					leave()
					return insertSetting(ctx, tx, "gone")
				})
			},
			func() error { return appendRow(t.Context(), db, "waits") },
		)
		if errs[0] != nil || !hasSetting(t, db, "gone") || errs[1] != nil || !hasSetting(t, db, "waits") {
			t.Errorf("they end with %v and %v", errs[0], errs[1])
		}
	})
}

func TestALostAnswerOfASharedCommitIsAnErrorOfAll(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		type loses struct{}
		db.SetForTests(store.ForTests{LoseAnswer: func(ctx context.Context) bool { return ctx.Value(loses{}) != nil }})
		ctx := context.WithValue(t.Context(), loses{}, true)
		errs := shares(t, db,
			func() error { return appendRow(ctx, db, "one") },
			func() error { return appendRow(ctx, db, "two") },
		)
		for _, err := range errs {
			if !store.IsAnswerLost(err) {
				t.Errorf("a call ends with %v", err)
			}
		}
		if !hasSetting(t, db, "one") || !hasSetting(t, db, "two") {
			t.Error("the rows are missing")
		}
	})
}

func TestSkippedAppendsDoNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		skip := true
		db.SetForTests(store.ForTests{SkipAppends: func() bool { return skip }})
		if err := appendRow(t.Context(), db, "skipped"); err != nil || hasSetting(t, db, "skipped") {
			t.Errorf("a skipped call of Append ended with %v, or wrote its row", err)
		}
		skip = false
		if err := appendRow(t.Context(), db, "written"); err != nil || !hasSetting(t, db, "written") {
			t.Errorf("the next one ended with %v, or did not write its row", err)
		}
	})
}

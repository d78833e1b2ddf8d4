package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// member is a change that is to share a transaction.
type member struct {
	note
	name    string // of its row
	order   int64
	refuses func(n *note) error // after its row is written
	err     error
}

// commitTogether commits changes so that they share a transaction: they arrive while that of
// another one is held open. It returns the transactions in which they ran, and their orders.
func commitTogether(t *testing.T, db *store.DB, members []*member) (ran []*store.Tx, orders []int64) {
	t.Helper()
	begun, end := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(begun); <-end })
	var all sync.WaitGroup
	all.Go(func() {
		err := db.CommitShared(t.Context(), nil, 0, func(context.Context, *store.Tx) error { once(); return nil })
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	var one sync.Mutex
	for _, m := range members {
		all.Go(func() {
			m.err = db.CommitShared(t.Context(), m, m.order, func(ctx context.Context, tx *store.Tx) error {
				one.Lock()
				ran, orders = append(ran, tx), append(orders, m.order)
				one.Unlock()
				if err := m.write(ctx, tx, m.name); err != nil || m.refuses == nil {
					return err
				}
				return m.refuses(&m.note)
			})
		})
	}
	store.AwaitCommits(db, len(members))
	close(end)
	all.Wait()
	return ran, orders
}

func TestSmallChangesShareATransactionInTheirOrder(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{})
		var members []*member
		for _, order := range []int64{5, 3, 9, 1} {
			members = append(members, &member{name: fmt.Sprint("in order ", store.NewID()), order: order})
		}
		ran, orders := commitTogether(t, db, members)
		if len(ran) != 4 || slices.ContainsFunc(ran, func(tx *store.Tx) bool { return tx != ran[0] }) || !slices.IsSorted(orders) {
			t.Errorf("they ran in the order of %d, and in several transactions: %v", orders, ran)
		}
		for _, m := range members {
			if m.err != nil || !hasSetting(t, db, m.name) || fmt.Sprint(m.outcomes) != fmt.Sprint([]store.Outcome{store.Committed}) {
				t.Errorf("member %d ends with %v, closed with %v", m.order, m.err, m.outcomes)
			}
		}
	})
}

// Each member learns how its own change ended, however many others fail.
func TestAFailedMemberChangesTheOutcomeOfNoOther(t *testing.T) {
	refused := errors.New("refused")
	for _, failing := range []int{1, 2, 5} {
		storetest.Each(t, func(t *testing.T, db *store.DB) {
			db.SetForTests(store.ForTests{})
			var members []*member
			for i := range 9 {
				m := &member{name: fmt.Sprintf("%d of %d, %d", i, failing, store.NewID()), order: int64(i)}
				switch {
				case i < failing:
					m.refuses = func(*note) error { return refused }
				case i == 8:
					m.refuses = func(n *note) error {
						if n.prepared == 0 {
							return store.ErrOutdated
						}
						return nil
					}
				}
				members = append(members, m)
			}
			commitTogether(t, db, members)
			for i, m := range members {
				want, outcome, prepared := error(nil), store.Committed, 0
				if i < failing {
					want, outcome = refused, store.NotCommitted
				}
				if i == 8 {
					prepared = 1
				}
				if !errors.Is(m.err, want) || hasSetting(t, db, m.name) != (want == nil) || m.prepared != prepared {
					t.Errorf("member %d of %d that fail ends with %v, prepared again %d times", i, failing, m.err, m.prepared)
				}
				if len(m.outcomes) != 1 || m.outcomes[0] != outcome {
					t.Errorf("member %d of %d that fail is closed with %v", i, failing, m.outcomes)
				}
			}
		})
	}
}

// A change that was undone with others, and is not made after that, is not committed.
func TestAMemberThatIsUndoneAndNotRepeatedIsNotCommitted(t *testing.T) {
	refused := errors.New("refused")
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{})
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		var members []*member
		for i := range 6 { // so many that the others are run alone
			members = append(members, &member{order: int64(i + 1), refuses: func(*note) error { leave(); return refused }})
		}
		gone := &note{}
		begun, end := make(chan struct{}), make(chan struct{})
		once := sync.OnceFunc(func() { close(begun); <-end })
		var all sync.WaitGroup
		all.Go(func() {
			_ = db.CommitShared(t.Context(), nil, 0, func(context.Context, *store.Tx) error { once(); return nil })
		})
		<-begun
		var err error
		all.Go(func() {
			err = db.CommitShared(ctx, gone, 0, func(ctx context.Context, tx *store.Tx) error { return gone.write(ctx, tx, "gone") })
		})
		for _, m := range members {
			all.Go(func() {
				m.err = db.CommitShared(t.Context(), m, m.order, func(context.Context, *store.Tx) error { return m.refuses(&m.note) })
			})
		}
		store.AwaitCommits(db, 7)
		close(end)
		all.Wait()
		if !errors.Is(err, context.Canceled) || hasSetting(t, db, "gone") || len(gone.outcomes) != 1 || gone.outcomes[0] != store.NotCommitted {
			t.Errorf("it ends with %v, closed with %v", err, gone.outcomes)
		}
	})
}

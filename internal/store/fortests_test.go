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

func TestInTestsAFunctionThatSucceedsIsRolledBackRunAgainAndCommitted(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ran := int64(0)
		write := func(ctx context.Context, tx *store.Tx) error {
			ran++
			_, err := tx.Exec(ctx, makeBox, ran, 7, []byte("body"))
			return err
		}
		inTx(t, db, write)
		if ran != 2 || box(t, db, 1) != -1 || box(t, db, 2) != 7 {
			t.Errorf("ran %d times; the first run left %d, the second one %d", ran, box(t, db, 1), box(t, db, 2))
		}
		ran = 0
		refused := errors.New("refused")
		if err := db.InTx(t.Context(), func(*store.Tx) error { ran++; return refused }); !errors.Is(err, refused) || ran != 1 {
			t.Errorf("ran %d times: %v", ran, err)
		}
	})
}

func TestACommitWhoseAnswerATestLosesHasHappenedAndIsUnavailable(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{LoseAnswer: func(context.Context) bool { return true }})
		err := db.InTx(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(t.Context(), makeBox, 1, 7, []byte("body"))
			return err
		})
		if !fail.Is(err, api.Unavailable) || !store.IsAnswerLost(err) || box(t, db, 1) != 7 {
			t.Errorf("error %v, code %s; the box has %d", err, fail.CodeOf(err), box(t, db, 1))
		}
	})
}

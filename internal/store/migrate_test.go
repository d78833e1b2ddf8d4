package store_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func eachURL(t *testing.T, test func(t *testing.T, address string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, storetest.SQLiteURL(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, storetest.PostgresURL(t)) })
}

func TestNewerSchemaIsRefusedUnchanged(t *testing.T) {
	eachURL(t, func(t *testing.T, address string) {
		db := storetest.Open(t, address)
		inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO schema_version (version_id, is_applied) VALUES (?1, "+map[string]string{"sqlite": "1", "postgres": "true"}[db.Dialect().Name]+")", 99999)
			return err
		})
		newer, err := store.Open(t.Context(), address)
		if err == nil {
			_ = newer.Close()
		}
		if !fail.Is(err, api.NewerFormat) || !strings.Contains(err.Error(), "version 99999") {
			t.Errorf("got %v", err)
		}
	})
}

func TestReopenedDatabaseKeepsItsRows(t *testing.T) {
	eachURL(t, func(t *testing.T, address string) {
		newBox(t, storetest.Open(t, address), 1)
		if got := box(t, storetest.Open(t, address), 1); got != 0 {
			t.Errorf("box holds %d", got)
		}
	})
}

func TestNodesThatStartAtOnceMigrateOnce(t *testing.T) {
	address := storetest.PostgresURL(t)
	inTx(t, storetest.Open(t, address), func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, "DROP SCHEMA public CASCADE") // the template's
		if err == nil {
			_, err = tx.Exec(ctx, "CREATE SCHEMA public")
		}
		return err
	})
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			db, err := store.Open(t.Context(), address)
			if err != nil {
				t.Error(err)
				return
			}
			_ = db.Close()
		})
	}
	all.Wait()
	newBox(t, storetest.Open(t, address), 1)
}

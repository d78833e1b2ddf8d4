package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// A database whose file was damaged while it was open fails with that code and a hint.
func TestErrorNamesADamagedDatabaseFile(t *testing.T) {
	ctx := t.Context()
	read := func(db *store.DB) error {
		return db.View(ctx, func(tx *store.Tx) error {
			var n int64
			return tx.QueryRow(ctx, `SELECT SUM(length(text)) FROM thing`).Scan(&n)
		})
	}
	named := func(t *testing.T, err error) {
		t.Helper()
		if _, detail, hint := fail.Public(err); fail.CodeOf(err) != api.Damaged || !strings.Contains(detail, "database is damaged") || !strings.Contains(hint, "restore") {
			t.Errorf("[%s] %v", fail.CodeOf(err), err)
		}
	}
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keyroll.db")
		db, err := store.Open(ctx, "sqlite://"+path)
		must(t, err)
		must(t, db.InTx(ctx, func(tx *store.Tx) error {
			if _, err := tx.Exec(ctx, `CREATE TABLE thing (id BIGINT PRIMARY KEY, text TEXT NOT NULL)`); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `INSERT INTO thing WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT i, hex(randomblob(500)) FROM n`)
			return err
		}))
		must(t, db.Close())
		file, err := os.ReadFile(path)
		must(t, err)
		clear(file[len(file)/2:])
		must(t, os.WriteFile(path, file, 0o600))
		db, err = store.Open(ctx, "sqlite://"+path)
		must(t, err)
		defer db.Close()
		named(t, read(db))
	})
	t.Run("postgres", func(t *testing.T) { // by the code that it returns
		db := storetest.Postgres(t)
		named(t, db.InTx(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(ctx, `DO $$ BEGIN RAISE EXCEPTION 'invalid page in block 7' USING ERRCODE = 'data_corrupted'; END $$`)
			return err
		}))
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

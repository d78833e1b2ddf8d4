package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// A database that is full or read-only fails with that code and a hint; it can still be
// read, nothing is half written, and once the state has ended the same writes succeed
// without a restart: a read-only session of PostgreSQL is not used again.
func TestAFullOrReadOnlyDatabaseIsReportedAndRecovers(t *testing.T) {
	for _, c := range []struct {
		name       string
		begin, end map[string]string // a statement for each database
		want       api.Code
		says       string
	}{
		{"full",
			map[string]string{"sqlite": `PRAGMA max_page_count = 1`, "postgres": `CREATE TRIGGER full_disk BEFORE INSERT ON thing EXECUTE FUNCTION no_room()`},
			map[string]string{"sqlite": `PRAGMA max_page_count = 1000000`, "postgres": `DROP TRIGGER full_disk ON thing`},
			api.InsufficientStorage, "no space left"},
		{"read-only",
			map[string]string{"sqlite": `PRAGMA query_only = 1`, "postgres": `SET default_transaction_read_only = on`},
			map[string]string{"sqlite": `PRAGMA query_only = 0`, "postgres": `SELECT 1`}, // the session stays as it is
			api.ReadOnly, "does not accept writes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			storetest.Each(t, func(t *testing.T, db *store.DB) {
				ctx := t.Context()
				must := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				do := func(statements ...string) error {
					return db.InTx(ctx, func(tx *store.Tx) error {
						for _, s := range statements {
							if _, err := tx.Exec(ctx, s); err != nil {
								return err
							}
						}
						return nil
					})
				}
				session := func(statement string) { // of the only connection that this test uses
					t.Helper()
					_, err := db.Writer().ExecContext(ctx, statement)
					must(err)
				}
				must(do(`CREATE TABLE thing (id BIGINT PRIMARY KEY, text TEXT NOT NULL)`, `INSERT INTO thing VALUES (1, 'there')`))
				if db.Dialect().Name == "postgres" {
					must(do(`CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$`))
				}
				long := strings.Repeat("x", 100_000)
				write := func() error {
					return db.InTx(ctx, func(tx *store.Tx) error {
						if _, err := tx.Exec(ctx, `UPDATE thing SET text = 'half'`); err != nil {
							return err
						}
						_, err := tx.Exec(ctx, `INSERT INTO thing VALUES (2, ?1)`, long)
						return err
					})
				}
				session(c.begin[db.Dialect().Name])
				err := write()
				if fail.CodeOf(err) != c.want || !strings.Contains(err.Error(), c.says) {
					t.Errorf("[%s] %v", fail.CodeOf(err), err)
				}
				if _, detail, hint := fail.Public(err); strings.Contains(detail+hint, "/") && !strings.Contains(detail+hint, "docs/") || hint == "" {
					t.Errorf("a tenant is told %q, %q", detail, hint)
				}
				texts := func() (n int64, text string) {
					must(db.View(ctx, func(tx *store.Tx) error {
						return tx.QueryRow(ctx, `SELECT count(*), min(text) FROM thing`).Scan(&n, &text)
					}))
					return n, text
				}
				if n, text := texts(); n != 1 || text != "there" {
					t.Errorf("%d rows, %q", n, text)
				}
				session(c.end[db.Dialect().Name])
				must(write())
				if n, text := texts(); n != 2 || text != "half" {
					t.Errorf("afterwards %d rows, %q", n, text)
				}
			})
		})
	}
}

// An error of a transaction's function is returned unchanged.
func TestErrorsOfATransactionsFunctionAreReturnedUnchanged(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		for _, own := range []error{context.Canceled, fail.New(api.Conflict, "x"), errors.New("x")} {
			for _, run := range []func(context.Context, func(*store.Tx) error) error{db.InTx, db.View} {
				if err := run(t.Context(), func(*store.Tx) error { return own }); err != own {
					t.Errorf("%v came back as %v", own, err)
				}
			}
		}
	})
}

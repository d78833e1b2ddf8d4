package store_test

import (
	"fmt"
	"testing"

	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// A statement that is used again gets the result that it would get for the first time:
// after a failure, after a change of the schema, and among more statements than are kept.
func TestStatementsThatAreUsedAgain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		execute := func(query string, args ...any) error {
			return db.InTx(ctx, func(tx *store.Tx) error {
				_, err := tx.Exec(ctx, query, args...)
				return err
			})
		}
		const insert, number = `INSERT INTO again (id, word) VALUES (?1, ?2)`, `SELECT COUNT(*) FROM again WHERE word = ?1`
		count := func(word string) (n int) {
			if err := db.View(ctx, func(tx *store.Tx) error { return tx.QueryRow(ctx, number, word).Scan(&n) }); err != nil {
				t.Error(err)
			}
			return n
		}
		for _, query := range []string{`CREATE TABLE again (id BIGINT PRIMARY KEY, word TEXT NOT NULL)`, `CREATE INDEX again_word ON again (word)`} {
			if err := execute(query); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			if err := execute(insert, i, "a"); err != nil || count("a") != i+1 || count("b") != 0 {
				t.Fatalf("%d rows: %v", count("a"), err)
			}
			if err := execute(insert, i, "a"); !store.IsUnique(err) {
				t.Fatalf("the same row: %v", err)
			}
			if err := execute(fmt.Sprintf(`ALTER TABLE again ADD COLUMN c%d BIGINT`, i)); err != nil {
				t.Fatal(err)
			}
		}
		err := db.View(ctx, func(tx *store.Tx) error {
			for i := range 300 {
				var n int
				if err := tx.QueryRow(ctx, fmt.Sprintf(`SELECT COUNT(*) + %d FROM again`, i)).Scan(&n); err != nil || n != 3+i {
					return fmt.Errorf("%d: %w", n, err)
				}
			}
			return nil
		})
		if err != nil || count("a") != 3 {
			t.Error(err)
		}
	})
}

package store_test

import (
	"bytes"
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func TestParametersAreNumbered(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
			var a, b, c string
			err := tx.QueryRow(ctx, "SELECT CAST(?2 AS TEXT), CAST(?1 AS TEXT), CAST(?2 AS TEXT) || CAST(?10 AS TEXT)"+
				" WHERE CAST(?3 AS TEXT) || CAST(?4 AS TEXT) || CAST(?5 AS TEXT) || CAST(?6 AS TEXT) || CAST(?7 AS TEXT) || CAST(?8 AS TEXT) || CAST(?9 AS TEXT) = ?11",
				"one", "two", "3", "4", "5", "6", "7", "8?", "9", "ten", "345678?9").Scan(&a, &b, &c)
			if err == nil && (a != "two" || b != "one" || c != "twoten") {
				t.Errorf("got %q %q %q", a, b, c)
			}
			return err
		})
	})
}

func TestStatementsForOnlyOneDatabaseAreRefused(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		for _, c := range []struct {
			query string
			args  []any
			want  string
		}{
			{"SELECT ?1", nil, "1 parameters, 0 arguments"},
			{"SELECT ?1", []any{1, 2}, "1 parameters, 2 arguments"},
			{"SELECT ?", []any{1}, "without a number"},
			{"SELECT ?0", []any{1}, "without a number"},
			{"SELECT '?1'", []any{1}, "inside a literal"},
			{"SELECT ?1, ?3", []any{1, 2, 3}, "no ?2"},
			{"SELECT ?99999999999999999999", nil, "over 32766"},
			{"SELECT ?1", []any{time.Unix(0, 0)}, "time.Time"},
			{"SELECT ?1", []any{1.5}, "float64"},
			{"SELECT ?1", []any{uint64(math.MaxUint64)}, "uint64"},
		} {
			ctx := t.Context()
			check := func(how string, err error) error {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s %q %v: %v, want %q", how, c.query, c.args, err, c.want)
				}
				return err
			}
			_ = db.InTx(ctx, func(tx *store.Tx) error {
				_, err := tx.Exec(ctx, c.query, c.args...)
				return check("Exec", err)
			})
			_ = db.InTx(ctx, func(tx *store.Tx) error {
				var x any
				return check("QueryRow", tx.QueryRow(ctx, c.query, c.args...).Scan(&x))
			})
			_ = db.InTx(ctx, func(tx *store.Tx) error {
				_, err := tx.ExecMany(ctx, c.query, [][]any{c.args})
				return check("ExecMany", err)
			})
		}
	})
}

func TestBothDatabasesStoreArgumentsAlike(t *testing.T) {
	type class uint8
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
			const insert = "INSERT INTO key_page (id, tenant, parent, generation, class, version, count, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
			args := func(id int) []any {
				return []any{id, true, false, uint32(math.MaxUint32), class(7), uint64(math.MaxInt64), int64(math.MinInt64), []byte{}}
			}
			if _, err := tx.Exec(ctx, insert, args(1)...); err != nil {
				return err
			}
			if _, err := tx.ExecMany(ctx, insert, [][]any{args(2)}); err != nil {
				return err
			}
			for id := 1; id <= 2; id++ {
				var tenant, parent, generation, version, count int64
				var kind class
				var body []byte
				err := tx.QueryRow(ctx, "SELECT tenant, parent, generation, class, version, count, body FROM key_page WHERE id = ?1", id).
					Scan(&tenant, &parent, &generation, &kind, &version, &count, &body)
				if err != nil {
					return err
				}
				if tenant != 1 || parent != 0 || generation != math.MaxUint32 || kind != 7 ||
					version != math.MaxInt64 || count != math.MinInt64 || body == nil || len(body) != 0 {
					t.Error(id, tenant, parent, generation, kind, version, count, body)
				}
			}
			var null *string
			if err := tx.QueryRow(ctx, "SELECT CAST(?1 AS TEXT)", []byte(nil)).Scan(&null); err != nil || null != nil {
				t.Errorf("a nil slice came back as %v, %v", null, err)
			}
			return nil
		})
	})
}

func TestExecTogetherChangesTheRowsOfItsTable(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
			body := make([]byte, 29)
			var boxes [][]any
			var rows [][]int64
			for id := int64(1); id <= 203; id++ { // several statements
				boxes, rows = append(boxes, []any{id, 0, body}), append(rows, []int64{id, 1000 + id})
			}
			if _, err := tx.ExecMany(ctx, makeBox, boxes); err != nil {
				return err
			}
			const move = "UPDATE key_page SET id = new.column2 FROM ROWS AS new WHERE key_page.id = new.column1"
			if n, err := tx.ExecTogether(ctx, move, append(rows, []int64{5000, 1})); err != nil || n != 203 {
				t.Errorf("%d rows of 204 were changed, error %v", n, err)
			}
			var n, first, last int64
			err := tx.QueryRow(ctx, "SELECT COUNT(*), MIN(id), MAX(id) FROM key_page").Scan(&n, &first, &last)
			if n != 203 || first != 1001 || last != 1203 {
				t.Errorf("there are %d rows, %d to %d", n, first, last)
			}
			if n, err := tx.ExecTogether(ctx, move, nil); n != 0 || err != nil {
				t.Errorf("no rows: %d, %v", n, err)
			}
			return err
		})
	})
}

func TestExecManyReportsEachRowInOrder(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		const n = 2500 // over two pipelines
		body := bytes.Repeat([]byte("b"), 100)
		inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
			rows := make([][]any, n)
			for i := range rows {
				rows[i] = []any{i + 1, i % 3, body}
			}
			if _, err := tx.ExecMany(ctx, makeBox, rows); err != nil {
				return err
			}
			for i := range rows {
				rows[i] = []any{i + 1, 0}
			}
			affected, err := tx.ExecMany(ctx, "DELETE FROM key_page WHERE id = ?1 AND version = ?2", rows)
			if len(affected) != n {
				t.Fatalf("%d results, %v", len(affected), err)
			}
			for i, got := range affected {
				if want := int64(1 - min(i%3, 1)); got != want {
					t.Fatalf("row %d: %d, want %d", i, got, want)
				}
			}
			if none, err := tx.ExecMany(ctx, makeBox, nil); err != nil || len(none) != 0 {
				t.Errorf("no rows: %v, %v", none, err)
			}
			return err
		})
		err := db.InTx(t.Context(), func(tx *store.Tx) error {
			if _, err := tx.ExecMany(t.Context(), makeBox, [][]any{{9001, 0, body}, {9001, 0, body}, {9002, 0, body}}); !store.IsUnique(err) {
				t.Errorf("a key twice: %v", err)
			}
			return nil
		})
		if err == nil || box(t, db, 9001) != -1 {
			t.Errorf("after a failed row: %v", err)
		}
	})
}

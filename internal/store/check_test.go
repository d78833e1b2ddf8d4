package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// fillIndexedTable fills a table with an index of its own.
func fillIndexedTable(t *testing.T, db *store.DB, from, to int64) {
	t.Helper()
	ctx := t.Context()
	must(t, db.InTx(ctx, func(tx *store.Tx) error {
		for _, statement := range []string{`CREATE TABLE IF NOT EXISTS thing (id BIGINT PRIMARY KEY, other BIGINT NOT NULL, text TEXT NOT NULL)`,
			`CREATE INDEX IF NOT EXISTS thing_other ON thing (other)`} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		var rows [][]any
		for id := from; id < to; id++ {
			rows = append(rows, []any{id, id % 1000, strings.Repeat("x", 40)})
		}
		_, err := tx.ExecMany(ctx, `INSERT INTO thing (id, other, text) VALUES (?1, ?2, ?3)`, rows)
		return err
	}))
}

// amcheck installs the extension with which PostgreSQL compares tables with their
// indexes.
func amcheck(t *testing.T, db *store.DB) {
	t.Helper()
	if db.Dialect().Name == "postgres" {
		must(t, db.InTx(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(t.Context(), `CREATE EXTENSION amcheck`)
			return err
		}))
	}
}

func scanOther(t *testing.T, db *store.DB, others ...int64) (ids []int64) {
	t.Helper()
	must(t, db.Scan(t.Context(), store.ScanQuery{Table: "thing", Columns: "id", Column: "other", IDs: others}, func(row store.Scanner) error {
		var id int64
		err := row.Scan(&id)
		ids = append(ids, id)
		return err
	}))
	slices.Sort(ids)
	return ids
}

// An index that lost writes is detected and named, and a scan finds the rows that it has
// lost.
func TestAnIndexThatLostWritesIsReportedAndScanReadsTheRows(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		fillIndexedTable(t, db, 1, 3000)
		if checked, err := db.CheckTable(t.Context(), "thing"); err != nil || checked != (db.Dialect().Name == "sqlite") {
			t.Fatalf("checked %v: %v", checked, err)
		}
		amcheck(t, db)
		db = storetest.LoseWrites(t, db, "thing_other", func(db *store.DB) { fillIndexedTable(t, db, 3000, 3010) })
		byIndex := func() (n int64) {
			must(t, db.View(t.Context(), func(tx *store.Tx) error {
				return tx.QueryRow(t.Context(), `SELECT COUNT(*) FROM thing WHERE other = ?1`, 3).Scan(&n)
			}))
			return n
		}
		if n := byIndex(); n != 3 {
			t.Fatalf("the index finds %d rows, and should not find the last", n)
		}
		if ids := scanOther(t, db, 3, 5000, 7); fmt.Sprint(ids) != "[3 7 1003 1007 2003 2007 3003 3007]" {
			t.Errorf("scan finds %v", ids)
		}
		checked, err := db.CheckTable(t.Context(), "thing")
		if _, detail, _ := fail.Public(err); !checked || !fail.Is(err, api.Damaged) || !strings.Contains(detail, "thing_other") || strings.Contains(detail, "xxxx") {
			t.Errorf("checked %v: %v", checked, err)
		}
		must(t, db.CheckTables(t.Context(), "tenant", "blob"))
		if err := db.CheckTables(t.Context(), "tenant", "thing"); !fail.Is(err, api.Damaged) {
			t.Error(err)
		}
	})
}

func TestAnIndexOfZerosIsReportedAndScanDoesNotUseIt(t *testing.T) {
	db := storetest.SQLite(t)
	fillIndexedTable(t, db, 1, 3000)
	db = storetest.ZeroIndex(t, db, "thing_other")
	if ids := scanOther(t, db, 3); len(ids) != 3 {
		t.Errorf("%v", ids)
	}
	if _, err := db.CheckTable(t.Context(), "thing"); !fail.Is(err, api.Damaged) {
		t.Error(err)
	}
}

// A scan of several parts reads a table to its end.
func TestAScanReadsAllParts(t *testing.T) {
	db := storetest.SQLite(t)
	fillIndexedTable(t, db, 1, 10)
	must(t, db.InTx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO thing WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 210000) SELECT i, i, '' FROM n`)
		return err
	}))
	if ids := scanOther(t, db, 9, 100_000, 100_001, 200_000, 210_000); fmt.Sprint(ids) != "[9 100000 100001 200000 210000]" {
		t.Errorf("%v", ids)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Scan(ended, store.ScanQuery{Table: "thing", Columns: "id", Column: "other", IDs: []int64{1}}, func(store.Scanner) error { return nil }); err == nil {
		t.Error("a scan goes on after its context ended")
	}
}

func TestCheckNamesAllTablesAndFindsNoDamage(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		amcheck(t, db)
		tables, err := db.Tables(t.Context())
		must(t, err)
		if !slices.Contains(tables, "key_page") || !slices.Contains(tables, "setting") {
			t.Errorf("%v", tables)
		}
		for _, table := range tables {
			if checked, err := db.CheckTable(t.Context(), table); !checked || err != nil {
				t.Errorf("%s: checked %v: %v", table, checked, err)
			}
		}
		if _, err := db.CheckTable(t.Context(), `thing"; DROP TABLE blob`); err == nil {
			t.Error("a name that is none is taken")
		}
	})
}

// A table that is too large to be checked when the database is opened is read without a
// wrong index from the first statement that uses it.
func TestAStatementWithAWrongIndexIsRepeatedWithoutIt(t *testing.T) {
	db := storetest.SQLite(t)
	fillIndexedTable(t, db, 1, 3000)
	db = storetest.Open(t, storetest.ZeroIndex(t, db, "thing_other").Shown())
	find := func(tx *store.Tx) error {
		ids, err := tx.IDs(t.Context(), `SELECT b.id FROM thing a JOIN thing AS b ON b.other = a.other WHERE a.other = ?1 ORDER BY b.id, a.id`, 7)
		if err == nil && fmt.Sprint(ids) != "[7 7 7 1007 1007 1007 2007 2007 2007]" {
			t.Error(ids)
		}
		return err
	}
	must(t, db.View(t.Context(), find))
	db = storetest.Open(t, db.Shown())
	must(t, db.InTx(t.Context(), func(tx *store.Tx) error {
		if err := find(tx); err != nil {
			return err
		}
		changed, err := tx.Exec(t.Context(), `UPDATE thing SET text = 'new' WHERE other = ?1`, 7)
		if err == nil && changed != 3 {
			t.Errorf("%d rows are changed", changed)
		}
		return err
	}))
	insert := func() error {
		return db.InTx(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO thing (id, other, text) VALUES (4000, 7, '')`)
			return err
		})
	}
	if _, _, hint := fail.Public(insert()); !strings.Contains(hint, "table thing") {
		t.Errorf("hint %q", hint)
	}
}

package keypage

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"keyroll/internal/envelope"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// fill puts many pages of which, as in production, most are of blobs and few match the
// queries.
func fill(t *testing.T, db *store.DB) {
	t.Helper()
	ctx := t.Context()
	var rows []Row
	for i := range 4000 {
		class := envelope.ClassBlob
		if i%20 == 0 {
			class = envelope.Class(1 + i/20%7)
		}
		rows = append(rows, Row{ID: store.NewID(), Tenant: 1, Parent: int64(i / 20 % 10), Generation: 1, Class: class, Version: 1, Count: 100, Body: make([]byte, 4000)})
	}
	if err := db.InTx(ctx, func(tx *store.Tx) error { return Put(ctx, tx, rows...) }); err != nil {
		t.Fatal(err)
	}
}

func queries() map[string]func() (string, []any) {
	part := spans([]Parent{{1, 1}, {2, 1}}, []envelope.Class{envelope.ClassActive, envelope.ClassSite})
	return map[string]func() (string, []any){
		"Under":     func() (string, []any) { return underPages(1, part, 5, 16) },
		"Count":     func() (string, []any) { return countPages(1, part) },
		"WithPages": func() (string, []any) { return parentsWithPages(1, part) },
		"Usage":     func() (string, []any) { return sumPages, []any{1, envelope.ClassBlob} },
		"GetAll": func() (string, []any) {
			ids := make([]int64, 50)
			for i := range ids {
				ids[i] = int64(i)
			}
			in, args := store.InList(ids, []any{1})
			return selectPages + in, args
		},
		"Standing": func() (string, []any) {
			return locationsUnder(1, envelope.ClassBlob, []Parent{{1, 1}, {2, 1}, {3, 1}})
		},
	}
}

// plan returns the lines of the database's plan for a query.
func plan(t *testing.T, db *store.DB, explain, query string, args []any) (lines []string) {
	t.Helper()
	ctx := t.Context()
	err := db.ViewOnce(ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(ctx, explain+query, args...)
		if err != nil {
			return err
		}
		columns, err := rows.Columns()
		if err != nil {
			return err
		}
		for rows.Next() {
			var line string
			fields := make([]any, len(columns)) // the text is in the last column
			for i := range fields {
				fields[i] = new(any)
			}
			fields[len(fields)-1] = &line
			if err := rows.Scan(fields...); err != nil {
				return err
			}
			lines = append(lines, line)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// The queries of the ledger and of Under's ids use only the index, and Under reads
// each body by its id.
func TestQueryPlansReadOnlyTheIndex(t *testing.T) {
	const covering = "USING COVERING INDEX key_page_place (tenant=? AND class"
	t.Run("sqlite", func(t *testing.T) {
		db := storetest.SQLite(t)
		fill(t, db)
		for name, query := range queries() {
			text, args := query()
			lines := plan(t, db, "EXPLAIN QUERY PLAN ", text, args)
			inIndex, byID := 0, 0
			for _, line := range lines {
				switch {
				case !strings.Contains(line, "key_page"):
				case strings.HasPrefix(line, "SEARCH key_page "+covering):
					inIndex++
				case line == "SEARCH key_page USING INTEGER PRIMARY KEY (rowid=?)" && (name == "Under" || name == "GetAll"):
					byID++
				default:
					t.Errorf("%s: %s", name, line)
				}
				if strings.Contains(line, "ORDER BY") || strings.Contains(line, "GROUP BY") { // a sort
					t.Errorf("%s: %s", name, line)
				}
			}
			want := map[string]string{"Under": "4 1", "GetAll": "0 1", "Count": "4 0", "WithPages": "4 0", "Usage": "1 0", "Standing": "4 0"}[name]
			if got := fmt.Sprint(inIndex, byID); got != want {
				t.Errorf("%s: %s searches in the index and by id, want %s:\n%s", name, got, want, strings.Join(lines, "\n"))
			}
		}
	})
	t.Run("postgres", func(t *testing.T) {
		address := storetest.PostgresURL(t)
		db := storetest.Open(t, address)
		fill(t, db)
		text, args := queries()["Standing"]()
		if lines := strings.Join(plan(t, db, "EXPLAIN ", text, args), "\n"); strings.Count(lines, "(parent = ") != 4 || strings.Contains(lines, "Filter") {
			t.Errorf("Locate, in a table without statistics:\n%s", lines)
		}
		vacuum(t, address)
		for name, query := range queries() {
			text, args := query()
			lines := strings.Join(plan(t, db, "EXPLAIN ", text, args), "\n")
			want := map[string]int{"Under": 4, "Count": 4, "WithPages": 4, "Usage": 1, "Standing": 4}[name]
			if got := strings.Count(lines, "Index Only Scan using key_page_place"); got != want {
				t.Errorf("%s: %d searches in the index, want %d:\n%s", name, got, want, lines)
			}
			if strings.Contains(lines, "Seq Scan") || (name == "Under" || name == "GetAll") != strings.Contains(lines, "Index Scan using key_page_pkey") {
				t.Errorf("%s:\n%s", name, lines)
			}
		}
	})
}

func vacuum(t *testing.T, address string) {
	t.Helper()
	admin, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := admin.ExecContext(context.Background(), "VACUUM ANALYZE key_page"); err != nil {
		t.Fatal(err)
	}
}

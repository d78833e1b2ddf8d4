package storetest

import (
	"context"
	"database/sql"
	"encoding/binary"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"keyroll/internal/store"
)

// LoseWrites runs during while writes to an index are lost, as by a disk that confirms a
// write without doing it, and returns the database after that. On SQLite the pages of
// the index are restored to their earlier content; on PostgreSQL the server is made not
// to update the index. db is closed on SQLite; the database that during gets must not be
// used after it.
func LoseWrites(t testing.TB, db *store.DB, index string, during func(db *store.DB)) *store.DB {
	t.Helper()
	KeepAnswers(t) // what an attempt leaves is found by an index, and removed by none that is wrong
	if db.Dialect().Name == "postgres" {
		setReady(t, db, index, false)
		during(db)
		setReady(t, db, index, true)
		return db
	}
	before := readIndex(t, db, index)
	db = Open(t, db.Shown())
	during(db)
	closeDB(t, db)
	before.write(t)
	return openUsing(t, db.Shown())
}

// openUsing opens a database that uses its indexes even if they are wrong, like one that
// is too large to be checked when it is opened.
func openUsing(t testing.TB, address string) *store.DB {
	t.Helper()
	db := Open(t, address)
	UseIndexes(t, db, true)
	return db
}

// UseIndexes makes a database use its indexes even if they are wrong; unless check is set
// it does not check them either.
func UseIndexes(t testing.TB, db *store.DB, check bool) {
	mode := Mode(t)
	mode.UseIndexes, mode.CheckNothing = true, !check
	db.SetForTests(mode)
}

// Reindex rebuilds the indexes of a table from its rows.
func Reindex(t testing.TB, db *store.DB, table string) {
	t.Helper()
	err := db.InTx(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec(context.Background(), map[string]string{"sqlite": `REINDEX `, "postgres": `REINDEX TABLE `}[db.Dialect().Name]+table)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// setReady sets whether the server keeps an index up to date. Queries use the index in
// either case.
func setReady(t testing.TB, db *store.DB, index string, ready bool) {
	t.Helper()
	err := db.InTx(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec(context.Background(), `UPDATE pg_index SET indisready = CAST(CAST(?2 AS TEXT) AS BOOLEAN) WHERE indexrelid = CAST(?1 AS regclass)`, index, map[bool]string{true: "t", false: "f"}[ready])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ZeroIndex overwrites the pages of an index of an SQLite database with zeros, and
// returns the database after that.
func ZeroIndex(t testing.TB, db *store.DB, index string) *store.DB {
	t.Helper()
	pages := readIndex(t, db, index)
	for _, page := range pages.pages {
		clear(page)
	}
	pages.write(t)
	return openUsing(t, db.Shown())
}

// ZeroIndexes overwrites all indexes of the SQLite database at path, which is
// closed, with zeros, except those given.
func ZeroIndexes(t testing.TB, path string, but ...string) {
	t.Helper()
	for _, index := range indexNames(t, path) {
		if slices.Contains(but, index) {
			continue
		}
		pages := indexIn(t, path, index)
		for _, page := range pages.pages {
			clear(page)
		}
		pages.write(t)
	}
}

// ForgetIndexes empties all indexes of the SQLite database at path, which is closed, as
// they were before its first row.
func ForgetIndexes(t testing.TB, path string) {
	t.Helper()
	file, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty.db")
	if err := os.WriteFile(empty, file, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, index := range indexNames(t, path) {
		pages := indexIn(t, empty, index)
		pages.path = path
		pages.write(t)
	}
}

func indexNames(t testing.TB, path string) (names []string) {
	t.Helper()
	raw := rawSQLite(t, path)
	defer raw.Close()
	rows, err := raw.Query(`SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name <> 'schema_version'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

// rawSQLite opens an SQLite file to which no process writes.
func rawSQLite(t testing.TB, path string) *sql.DB {
	t.Helper()
	raw, err := sql.Open("sqlite3", (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: "immutable=1"}).String())
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// indexPages is the pages of an index by their numbers.
type indexPages struct {
	path  string
	size  int64
	pages map[int64][]byte
}

// readIndex closes an SQLite database and reads an index from its file.
func readIndex(t testing.TB, db *store.DB, index string) indexPages {
	t.Helper()
	closeDB(t, db)
	address, err := url.Parse(db.Shown())
	if err != nil {
		t.Fatal(err)
	}
	return indexIn(t, address.Path, index)
}

// indexIn reads an index from the file of a closed database.
func indexIn(t testing.TB, path, index string) indexPages {
	t.Helper()
	i := indexPages{path: path, pages: map[int64][]byte{}}
	file, err := os.ReadFile(i.path)
	if err != nil {
		t.Fatal(err)
	}
	// sqlite.org/fileformat.html: the size of a page, of which 1 means 65,536.
	if i.size = int64(binary.BigEndian.Uint16(file[16:])); i.size == 1 {
		i.size = 65536
	}
	raw := rawSQLite(t, i.path)
	defer raw.Close()
	var root int64
	if err := raw.QueryRow(`SELECT rootpage FROM sqlite_schema WHERE type = 'index' AND name = ?1`, index).Scan(&root); err != nil {
		t.Fatalf("find index %s: %v", index, err)
	}
	i.add(file, root)
	return i
}

// add adds a page and its child pages.
func (i indexPages) add(file []byte, number int64) {
	page := append([]byte{}, file[(number-1)*i.size:number*i.size]...)
	i.pages[number] = page
	const interior = 2
	if page[0] != interior {
		return
	}
	cells := int(binary.BigEndian.Uint16(page[3:]))
	for c := range cells {
		at := binary.BigEndian.Uint16(page[12+2*c:])
		i.add(file, int64(binary.BigEndian.Uint32(page[at:])))
	}
	i.add(file, int64(binary.BigEndian.Uint32(page[8:])))
}

func (i indexPages) write(t testing.TB) {
	t.Helper()
	file, err := os.OpenFile(i.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for number, page := range i.pages {
		if _, err := file.WriteAt(page, (number-1)*i.size); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

func closeDB(t testing.TB, db *store.DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

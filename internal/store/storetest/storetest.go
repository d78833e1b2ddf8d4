// Package storetest gives tests real databases: SQLite in a temporary file, and a
// PostgreSQL server that the test process starts at first use.
//
// Nothing is left behind, however the test process ends, and no TestMain is
// needed: a shell starts the server and then reads from a pipe that only the
// test process holds open. When the process exits, panics or is killed, the
// pipe ends, the shell stops the server and removes its folder. A machine
// without PostgreSQL fails the test; nothing is skipped.
// Start reading at Each.
package storetest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"keyroll/internal/store"
)

// databaseVariable names the only database that tests run on: sqlite or postgres.
const databaseVariable = "KEYROLL_TEST_DATABASE"

// Each runs test once on a new SQLite database and once on a new PostgreSQL
// database, as the subtests sqlite and postgres; or on the one of them that the
// environment variable KEYROLL_TEST_DATABASE names.
func Each(t *testing.T, test func(t *testing.T, db *store.DB)) {
	t.Helper()
	only := os.Getenv(databaseVariable)
	if only != "postgres" {
		t.Run("sqlite", func(t *testing.T) { test(t, SQLite(t)) })
	}
	if only != "sqlite" {
		t.Run("postgres", func(t *testing.T) { test(t, Postgres(t)) })
	}
}

// One returns a new database with the schema, closed when t ends, for a test
// that needs any: SQLite, or PostgreSQL where KEYROLL_TEST_DATABASE says so. make
// test runs such tests with both.
func One(t testing.TB) *store.DB {
	t.Helper()
	if OnPostgres() {
		return Postgres(t)
	}
	return SQLite(t)
}

// OnPostgres reports whether tests that work with either database run on PostgreSQL.
func OnPostgres() bool { return os.Getenv(databaseVariable) == "postgres" }

// SQLite returns a new SQLite database with the schema, closed when t ends.
func SQLite(t testing.TB) *store.DB {
	t.Helper()
	file, err := schema()
	if err != nil {
		t.Fatalf("make the schema: %v", err)
	}
	path := filepath.Join(t.TempDir(), "keyroll.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	return Open(t, "sqlite://"+path)
}

// schema is the file of a database with only the schema, made once in a process, like
// the template database on PostgreSQL.
var schema = sync.OnceValues(func() ([]byte, error) {
	folder, err := os.MkdirTemp("", "keyroll-sqlite-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "keyroll.db")
	db, err := store.Open(context.Background(), "sqlite://"+path)
	if err != nil {
		return nil, err
	}
	if err := db.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// SQLiteURL returns the address of an SQLite database that does not exist yet.
func SQLiteURL(t testing.TB) string {
	t.Helper()
	return "sqlite://" + filepath.Join(t.TempDir(), "keyroll.db")
}

// Postgres returns a new PostgreSQL database with the schema, closed and
// dropped when t ends.
func Postgres(t testing.TB) *store.DB {
	t.Helper()
	return Open(t, PostgresURL(t))
}

// Mode is how the transactions of tests run: each function of InTx that succeeds
// is rolled back and run again, and the commits of Ask and LoseAt lose their
// answers. Benchmarks measure, so theirs run once.
func Mode(t testing.TB) store.ForTests {
	_, measured := t.(*testing.B)
	return store.ForTests{RunTwice: !measured, LoseAnswer: losesAnswer}
}

// Open opens the database at address and closes it when t ends. Its transactions
// run as Mode says.
func Open(t testing.TB, address string) *store.DB {
	t.Helper()
	db, err := store.Open(context.Background(), address)
	if err != nil {
		t.Fatal(err)
	}
	db.SetForTests(Mode(t))
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close database: %v", err)
		}
	})
	return db
}

// PassIDs waits until the clock has passed all ids that this process has made: within a
// millisecond.
func PassIDs() {
	for last := store.NewID(); store.IDFrom(time.Now()) <= last; {
	}
}

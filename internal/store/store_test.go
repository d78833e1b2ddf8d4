package store_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/ncruces/go-sqlite3"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// The tests use the table of key pages as any table with a key, numbers and
// bytes: box n has id n and counter version.
const (
	makeBox  = "INSERT INTO key_page (id, tenant, parent, generation, class, version, count, body) VALUES (?1, 1, 1, 1, 1, ?2, 1, ?3)"
	readBox  = "SELECT version FROM key_page WHERE id = ?1"
	writeBox = "UPDATE key_page SET version = ?2 WHERE id = ?1"
)

func inTx(t *testing.T, db *store.DB, fn func(ctx context.Context, tx *store.Tx) error) {
	t.Helper()
	ctx := t.Context()
	if err := db.InTx(ctx, func(tx *store.Tx) error { return fn(ctx, tx) }); err != nil {
		t.Fatal(err)
	}
}

func newBox(t *testing.T, db *store.DB, id int64) {
	t.Helper()
	inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, makeBox, id, 0, []byte("body"))
		return err
	})
}

// box returns the box's counter, -1 if there is no box.
func box(t *testing.T, db *store.DB, id int64) (version int64) {
	t.Helper()
	ctx := t.Context()
	err := db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(ctx, readBox, id).Scan(&version)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	return version
}

func TestErrorPanicAndCancelledContextRollBack(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		refused := errors.New("no")
		put := func(tx *store.Tx) {
			if _, err := tx.Exec(ctx, makeBox, 1, 0, []byte{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.InTx(ctx, func(tx *store.Tx) error { put(tx); return refused }); !errors.Is(err, refused) {
			t.Errorf("error of fn came back as %v", err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = db.InTx(ctx, func(tx *store.Tx) error { put(tx); panic("no") })
		}()
		err := db.InTx(ctx, func(tx *store.Tx) error { put(tx); cancel(); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled before the commit: %v", err)
		}
		if got := box(t, db, 1); got != -1 {
			t.Errorf("a transaction that was rolled back left a row")
		}
	})
}

func TestFailedStatementEndsItsTransaction(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		newBox(t, db, 1)
		ctx := t.Context()
		err := db.InTx(ctx, func(tx *store.Tx) error {
			if _, err := tx.Exec(ctx, makeBox, 2, 0, []byte{}); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx, makeBox, 1, 0, []byte{}); !store.IsUnique(err) {
				t.Fatalf("a second row of one key: %v", err)
			}
			if _, err := tx.Exec(ctx, makeBox, 3, 0, []byte{}); err == nil {
				t.Error("the transaction went on after a failed statement")
			}
			var n int64
			if err := tx.QueryRow(ctx, readBox, 1).Scan(&n); err == nil {
				t.Error("the transaction was read from after a failed statement")
			}
			return nil
		})
		if !store.IsUnique(err) {
			t.Errorf("commit after a failed statement: %v", err)
		}
		for id := range int64(2) {
			if got := box(t, db, 2+id); got != -1 {
				t.Errorf("box %d was committed", 2+id)
			}
		}
	})
}

func TestUniqueViolationIsDistinguishedFromOtherFailures(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		err := db.InTx(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(ctx, makeBox, 1, 0, nil) // NOT NULL
			return err
		})
		if err == nil || store.IsUnique(err) || store.IsUnique(nil) {
			t.Errorf("a missing body: %v", err)
		}
	})
}

func TestRowsLeftOpenDoNotHoldTheConnection(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		newBox(t, db, 1)
		newBox(t, db, 2)
		for range 20 { // more than there are connections
			_ = db.View(t.Context(), func(tx *store.Tx) error {
				rows, err := tx.Query(t.Context(), "SELECT id FROM key_page")
				if err == nil && !rows.Next() {
					t.Error("no row")
				}
				return err
			})
		}
		if got := box(t, db, 1); got != 0 {
			t.Errorf("box holds %d", got)
		}
	})
}

func TestViewSeesOneStateAndWritesNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		newBox(t, db, 1)
		ctx := t.Context()
		read := func(tx *store.Tx) (n int64) {
			if err := tx.QueryRow(ctx, readBox, 1).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		err := db.View(ctx, func(tx *store.Tx) error {
			before := read(tx)
			inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
				_, err := tx.Exec(ctx, writeBox, 1, 7)
				return err
			})
			if after := read(tx); after != before {
				t.Errorf("one View read %d, then %d", before, after)
			}
			if err := tx.Lock(ctx, 1, true); err == nil {
				t.Error("a View took a lock")
			}
			_, err := tx.Exec(ctx, writeBox, 1, 8)
			return err
		})
		if err == nil {
			t.Error("a View wrote")
		}
		if got := box(t, db, 1); got != 7 {
			t.Errorf("box holds %d", got)
		}
	})
}

// Two open databases simulate two nodes, or on SQLite two processes.
func TestReadModifyWriteUnderLockLosesNothing(t *testing.T) {
	test := func(t *testing.T, address string) {
		nodes := []*store.DB{storetest.Open(t, address), storetest.Open(t, address)}
		newBox(t, nodes[0], 1)
		const workers, rounds = 4, 25
		var all sync.WaitGroup
		for w := range workers {
			all.Go(func() {
				for range rounds {
					ctx := t.Context()
					err := nodes[w%2].InTx(ctx, func(tx *store.Tx) error {
						if err := tx.Lock(ctx, 99, true); err != nil {
							return err
						}
						var n int64
						if err := tx.QueryRow(ctx, readBox, 1).Scan(&n); err != nil {
							return err
						}
						_, err := tx.Exec(ctx, writeBox, 1, n+1)
						return err
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if got := box(t, nodes[0], 1); got != workers*rounds {
			t.Errorf("%d of %d increments stand", got, workers*rounds)
		}
	}
	t.Run("sqlite", func(t *testing.T) { test(t, storetest.SQLiteURL(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, storetest.PostgresURL(t)) })
}

func TestSharedLocksCoexistAndExcludeAnExclusiveLock(t *testing.T) {
	db := storetest.Postgres(t)
	ctx := t.Context()
	inTx(t, db, func(_ context.Context, first *store.Tx) error {
		if err := first.Lock(ctx, 5, false); err != nil {
			return err
		}
		inTx(t, db, func(_ context.Context, second *store.Tx) error { return second.Lock(ctx, 5, false) })
		err := db.InTx(ctx, func(third *store.Tx) error {
			if _, err := third.Exec(ctx, "SET LOCAL lock_timeout = '20ms'"); err != nil {
				return err
			}
			return third.Lock(ctx, 5, true)
		})
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "55P03" { // lock_not_available
			t.Errorf("an exclusive lock beside a shared one: %v", err)
		}
		return nil
	})
	inTx(t, db, func(_ context.Context, tx *store.Tx) error { return tx.Lock(ctx, 5, true) })
}

func TestDeadlockedTransactionIsRunAgain(t *testing.T) {
	db := storetest.Postgres(t)
	newBox(t, db, 1)
	newBox(t, db, 2)
	var met sync.WaitGroup // both hold their first row
	met.Add(2)
	both := func(first, second int64) func() {
		return func() {
			ran := 0
			inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
				ran++
				if _, err := tx.Exec(ctx, writeBox, first, 1); err != nil {
					return err
				}
				if ran == 1 {
					met.Done()
					met.Wait()
				}
				_, err := tx.Exec(ctx, writeBox, second, 1)
				return err
			})
		}
	}
	var all sync.WaitGroup
	all.Go(both(1, 2))
	all.Go(both(2, 1))
	all.Wait()
}

func TestRetriesAreBoundedAndOnlyForAbortedTransactions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		var broken error = sqlite3.BUSY
		if db.Dialect().Name == "postgres" {
			broken = &pgconn.PgError{Code: "40001"}
		}
		db.SetForTests(store.ForTests{}) // runs are counted
		ran := 0
		run := func(until int, err error) error {
			ran = 0
			return db.InTx(t.Context(), func(tx *store.Tx) error {
				if ran++; ran == until {
					return nil
				}
				return err
			})
		}
		if err := run(3, broken); err != nil || ran != 3 {
			t.Errorf("ran %d times: %v", ran, err)
		}
		if err := run(0, broken); !errors.Is(err, broken) || ran != 10 {
			t.Errorf("ran %d times: %v", ran, err)
		}
		if err := run(0, errors.New("no")); err == nil || ran != 1 {
			t.Errorf("ran %d times: %v", ran, err)
		}
	})
}

func TestOpenRefusesInvalidAddresses(t *testing.T) {
	folder := t.TempDir()
	noDatabase := filepath.Join(folder, "text.db")
	if err := os.WriteFile(noDatabase, []byte(strings.Repeat("this is not a database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		address string
		code    api.Code
	}{
		{"", api.InvalidArgument},
		{"mysql://localhost/keyroll", api.InvalidArgument},
		{"sqlite://keyroll.db", api.InvalidArgument},
		{"sqlite:keyroll.db", api.InvalidArgument},
		{"sqlite:///tmp/keyroll.db?mode=memory", api.InvalidArgument},
		{"sqlite://" + folder + "/missing/keyroll.db", api.InvalidArgument},
		{"sqlite://" + folder, api.InvalidArgument},
		{"sqlite://" + noDatabase, api.Damaged},
		{"postgres://keyroll:s3cret@localhost:port/keyroll", api.InvalidArgument},
		{"postgres://keyroll:s3cret@localhost/keyroll?connect_timeout=never", api.InvalidArgument},
		{"postgres://keyroll:s3cret@127.0.0.1:1/keyroll", api.Unavailable},
		{"postgres://127.0.0.1:1/keyroll?password=s3cret", api.Unavailable},
		{"postgres://127.0.0.1:1/keyroll?password=s3cret&connect_timeout=never", api.InvalidArgument},
	} {
		db, err := store.Open(t.Context(), c.address)
		if err == nil {
			_ = db.Close()
		}
		if !fail.Is(err, c.code) {
			t.Errorf("%s: %v, want %s", c.address, err, c.code)
			continue
		}
		for cause := err; cause != nil; cause = errors.Unwrap(cause) { // what is logged too
			if strings.Contains(cause.Error(), "s3cret") {
				t.Errorf("%s: the password is in %q", c.address, cause)
			}
		}
	}
}

func TestSQLiteFilesAreReadableByTheirOwnerOnlyAndCommitsAreDurable(t *testing.T) {
	address := storetest.SQLiteURL(t)
	path := strings.TrimPrefix(address, "sqlite://")
	if err := os.WriteFile(path, nil, 0o644); err != nil { // a careless copy
		t.Fatal(err)
	}
	db := storetest.Open(t, address)
	newBox(t, db, 1)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", info.Name(), info.Mode())
		}
	}
	pragma := func(tx *store.Tx, name string) (value string) {
		if err := tx.QueryRow(t.Context(), "PRAGMA "+name).Scan(&value); err != nil {
			t.Fatal(err)
		}
		return value
	}
	inTx(t, db, func(_ context.Context, tx *store.Tx) error {
		for name, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "page_size": "16384", "query_only": "0", "secure_delete": "1"} {
			if got := pragma(tx, name); got != want {
				t.Errorf("writer: %s is %s, want %s", name, got, want)
			}
		}
		return nil
	})
	err := db.View(t.Context(), func(tx *store.Tx) error {
		if got := pragma(tx, "query_only"); got != "1" {
			t.Errorf("reader: query_only is %s", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

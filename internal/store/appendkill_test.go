package store_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

const (
	killedDatabase = "KEYROLL_TEST_KILLED_DATABASE" // of the process that dies
	killedAt       = "KEYROLL_TEST_KILLED_AT"
)

// TestAppendChild is the process that dies. It does nothing unless
// TestAKillLosesNoAcknowledgedAppend started it.
func TestAppendChild(t *testing.T) {
	address := os.Getenv(killedDatabase)
	if address == "" {
		return
	}
	db, err := store.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	die := func(at string) {
		if os.Getenv(killedAt) == at {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {}
		}
	}
	call := func(name, next string) func() error {
		return func() error {
			return db.Append(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				if err := insertSetting(ctx, tx, name); err != nil {
					return err
				}
				if has, err := sees(ctx, tx, next); err != nil || has {
					die("before the commit") // both have inserted their rows
				}
				return nil
			})
		}
	}
	for _, err := range shares(t, db, call("one", "two"), call("two", "one")) {
		if err != nil {
			t.Error(err)
		}
	}
	die("after the answers")
	t.Error("it was not killed")
}

// sees reports whether table setting has a row, as a transaction sees it.
func sees(ctx context.Context, tx *store.Tx, name string) (has bool, err error) {
	var n int64
	err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM setting WHERE name = ?1`, name).Scan(&n)
	return n > 0, err
}

// A process that is killed between the insertion of the rows of two calls that share a
// transaction and its commit leaves neither; one that is killed after both have returned
// leaves both.
func TestAKillLosesNoAcknowledgedAppend(t *testing.T) {
	for at, want := range map[string]bool{"before the commit": false, "after the answers": true} {
		t.Run(at, func(t *testing.T) {
			addresses := map[string]func(testing.TB) string{"sqlite": storetest.SQLiteURL, "postgres": storetest.PostgresURL}
			for name, address := range addresses {
				if only := os.Getenv("KEYROLL_TEST_DATABASE"); only != "" && only != name {
					continue
				}
				url := address(t)
				child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAppendChild$")
				child.Env = append(os.Environ(), killedDatabase+"="+url, killedAt+"="+at)
				out, err := child.CombinedOutput()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("%s: it was not killed: %v\n%s", name, err, out)
				}
				db := storetest.Open(t, url)
				for _, row := range []string{"one", "two"} {
					if hasSetting(t, db, row) != want {
						t.Errorf("%s: row %s is there: %v, want %v", name, row, !want, want)
					}
				}
			}
		})
	}
}

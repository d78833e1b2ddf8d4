package store_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// stageMove makes an SQLite database with rows in tables of all types, among them rows
// that reference others, and values that are easily confused.
func stageMove(t *testing.T) (address string) {
	t.Helper()
	address = storetest.SQLiteURL(t)
	db := storetest.Open(t, address)
	inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
		for i := range int64(700) {
			if _, err := tx.Exec(ctx, makeBox, i+1, i, bytes.Repeat([]byte{byte(i)}, int(i))); err != nil {
				return err
			}
		}
		for _, name := range []string{"b", "B", "a", "ä", "zz", "", "é", "日本"} { // sorted by their bytes on both sides
			if _, err := tx.Exec(ctx, `INSERT INTO setting (name, value) VALUES (?1, ?1)`, name); err != nil {
				return err
			}
		}
		for _, statement := range []string{
			`INSERT INTO item (id, tenant, container, version, path_hash, metadata, size, created) VALUES (9223372036854775807, 1, 1, 1, NULL, 'm', -1, 0)`,
			`INSERT INTO item (id, tenant, container, version, path_hash, metadata, size, created) VALUES (-5, 1, 1, 1, ?1, ?1, 0, 0)`,
		} {
			if strings.Contains(statement, "?1") {
				if _, err := tx.Exec(ctx, statement, []byte{0, 255}); err != nil {
					return err
				}
			} else if _, err := tx.Exec(ctx, strings.Replace(statement, "'m'", "?1", 1), []byte{}); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `INSERT INTO blob (id, tenant, item, sequence, size, page) VALUES (1, 1, -5, 0, 0, 1)`)
		return err
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return address
}

func run(t *testing.T, db *store.DB, statements ...string) {
	t.Helper()
	inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
		for _, s := range statements {
			if _, err := tx.Exec(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
}

func noProgress(string, int64, int64) {}

// wantOneUsable fails the test unless exactly one of two addresses is a database to use, and
// returns which.
func wantOneUsable(t *testing.T, from, to string) (target bool) {
	t.Helper()
	open := func(address string) bool {
		db, err := store.Open(t.Context(), address)
		if err == nil {
			err = db.Close()
		} else if !fail.Is(err, api.Conflict) {
			t.Fatal(err)
		}
		return err == nil
	}
	source, target := open(from), open(to)
	if source && target {
		t.Fatal("both databases are to be used")
	}
	return target
}

func TestMovedDatabaseHasTheSameRowsAndIsTheOneToUse(t *testing.T) {
	from, to := stageMove(t), storetest.EmptyPostgresURL(t)
	var last, total int64
	moved, err := store.Move(t.Context(), from, to, func(_ string, done, of int64) {
		if done < last || done > of {
			t.Errorf("%d of %d after %d", done, of, last)
		}
		last, total = done, of
	})
	if err != nil {
		t.Fatal(err)
	}
	if moved.Rows != 711 || total != 2*711 || last != total {
		t.Errorf("%d rows; told %d of %d", moved.Rows, last, total)
	}
	if !wantOneUsable(t, from, to) {
		t.Fatal("the target is not the one to use")
	}
	if other, err := store.MovedTo(t.Context(), from); err != nil || other != moved.To {
		t.Errorf("moved to %q, %v; want %q", other, err, moved.To)
	}
	_, err = store.Open(t.Context(), from)
	if !fail.Is(err, api.Conflict) || !strings.Contains(err.Error(), "was moved to "+moved.To) {
		t.Errorf("the source: %v", err)
	}
	db := storetest.Open(t, to)
	if got := box(t, db, 700); got != 699 {
		t.Errorf("box 700 holds %d", got)
	}
	newBox(t, db, 1000)
	if _, err := store.Move(t.Context(), from, to, noProgress); !fail.Is(err, api.Conflict) {
		t.Errorf("moved a second time: %v", err)
	}
	if got := box(t, db, 1000); got != 0 {
		t.Error("a row is gone that came after the move")
	}
}

// A move that is interrupted at any point leaves one database to use, or for one moment
// none, and the same move succeeds afterwards.
func TestInterruptedMoveLeavesExactlyOneDatabaseToUse(t *testing.T) {
	defer fault.Set(nil)
	var points []string
	fault.Set(func(name string) { points = append(points, name) })
	if _, err := store.Move(t.Context(), stageMove(t), storetest.EmptyPostgresURL(t), noProgress); err != nil {
		t.Fatal(err)
	}
	if first, last := points[0], points[len(points)-1]; first != "database.noted" || last != "database.done" {
		t.Errorf("from %s to %s", first, last)
	}
	for die, at := range points {
		if 0 < die && die < len(points)-1 && points[die-1] == at && points[die+1] == at {
			continue // a table like the one before and the one after
		}
		from, to := stageMove(t), storetest.EmptyPostgresURL(t)
		dieAfter(t, die, from, to)
		if at == "database.noted" { // the target is empty; opening it would create the schema
			storetest.Open(t, from)
		} else if target := wantOneUsable(t, from, to); target != (at == "database.done") {
			t.Errorf("%s: the target is the one to use: %v", at, target)
		}
		if at == "database.done" {
			continue
		}
		if at != "database.left" { // the source is used until then
			newBox(t, storetest.Open(t, from), 5000)
		}
		moved, err := store.Move(t.Context(), from, to, noProgress)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if !wantOneUsable(t, from, to) {
			t.Errorf("%s: after a second move the target is not the one to use", at)
		}
		want := int64(712)
		if at == "database.left" {
			want--
		}
		if moved.Rows != want {
			t.Errorf("%s: %d rows moved, want %d", at, moved.Rows, want)
		}
	}
}

func TestMoveRefusesDatabasesThatItCannotMoveCompletely(t *testing.T) {
	// In all cases the source stays the one to use.
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, from, to string)
		says  string
	}{
		{"a target with a table", func(t *testing.T, _, to string) {
			storetest.Open(t, to)
		}, "is not empty"},
		{"the unfinished move of another database", func(t *testing.T, _, to string) {
			dieAt(t, "database.begun", stageMove(t), to)
		}, "unfinished move of another database"},
		{"a target that lost a table", func(t *testing.T, from, to string) {
			dieAt(t, "database.schema", from, to)
			execute(t, to, "DROP TABLE dropped")
		}, "table dropped is missing"},
		{"a target whose column is another", func(t *testing.T, from, to string) {
			dieAt(t, "database.schema", from, to)
			execute(t, to, "ALTER TABLE dropped ALTER COLUMN item TYPE TEXT")
		}, "column item of table dropped"},
		{"a target that changes a row", func(t *testing.T, from, to string) {
			dieAt(t, "database.schema", from, to)
			execute(t, to, `CREATE FUNCTION bend() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.count = NEW.count + 1; RETURN NEW; END $$`,
				`CREATE TRIGGER bend BEFORE INSERT ON key_page FOR EACH ROW WHEN (NEW.id = 77) EXECUTE FUNCTION bend()`)
		}, "table key_page: the copy differs: it has 700 rows, the source has 700"},
		{"a target that loses a row", func(t *testing.T, from, to string) {
			dieAt(t, "database.schema", from, to)
			execute(t, to, `CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`,
				`CREATE TRIGGER lose BEFORE INSERT ON key_page FOR EACH ROW WHEN (NEW.id = 77) EXECUTE FUNCTION lose()`)
		}, "table key_page: the copy differs: it has 699 rows, the source has 700"},
		{"text that PostgreSQL does not take", func(t *testing.T, from, _ string) {
			run(t, storetest.Open(t, from), `INSERT INTO setting (name, value) VALUES ('x', CAST(x'610062' AS TEXT))`)
		}, "table setting: PostgreSQL refuses a row"},
		{"a value that is not of its column's type", func(t *testing.T, from, _ string) {
			run(t, storetest.Open(t, from), `INSERT INTO setting (name, value) VALUES ('x', x'ff')`)
		}, "column value holds a value that is not of type text"},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := stageMove(t), storetest.EmptyPostgresURL(t)
			c.spoil(t, from, to)
			_, err := store.Move(t.Context(), from, to, noProgress)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
			storetest.Open(t, from)
		})
	}
	for _, c := range [][2]string{{storetest.PostgresURL(t), storetest.EmptyPostgresURL(t)}, {stageMove(t), storetest.SQLiteURL(t)}} {
		if _, err := store.Move(t.Context(), c[0], c[1], noProgress); !fail.Is(err, api.InvalidArgument) {
			t.Errorf("from %.10s to %.10s: %v", c[0], c[1], err)
		}
	}
}

// If a move was begun to one target and finished to another, the first target never
// becomes a second database to use.
func TestMoveToAnotherTargetLeavesTheFirstUnusable(t *testing.T) {
	from, first, second := stageMove(t), storetest.EmptyPostgresURL(t), storetest.EmptyPostgresURL(t)
	dieAt(t, "database.compared", from, first)
	if _, err := store.Move(t.Context(), from, second, noProgress); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Move(t.Context(), from, first, noProgress); !fail.Is(err, api.Conflict) {
		t.Errorf("moved to a second place: %v", err)
	}
	if wantOneUsable(t, from, first) {
		t.Error("the first target is a database to use")
	}
}

func execute(t *testing.T, address string, statements ...string) {
	t.Helper()
	if err := store.Execute(t.Context(), address, statements...); err != nil {
		t.Fatal(err)
	}
}

// dieAt ends a move at the first point of a name.
func dieAt(t *testing.T, point, from, to string) {
	t.Helper()
	stopMove(t, func(name string) bool { return name == point }, from, to)
}

// dieAfter ends a move after so many points.
func dieAfter(t *testing.T, points int, from, to string) {
	t.Helper()
	met := -1
	stopMove(t, func(string) bool { met++; return met == points }, from, to)
}

func stopMove(t *testing.T, now func(name string) bool, from, to string) {
	t.Helper()
	dead := errors.New("dead")
	fault.Set(func(name string) {
		if now(name) {
			panic(dead)
		}
	})
	defer fault.Set(nil)
	defer func() {
		if r := recover(); r != any(dead) {
			t.Fatalf("it did not die: %v", r)
		}
	}()
	_, err := store.Move(t.Context(), from, to, noProgress)
	t.Errorf("it went through: %v", err)
}

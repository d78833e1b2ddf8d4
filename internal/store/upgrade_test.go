package store_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func eachEmptyURL(t *testing.T, test func(t *testing.T, address string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, storetest.SQLiteURL(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, storetest.EmptyPostgresURL(t)) })
}

// Every version of the schema, with rows in all its tables, is migrated to the newest:
// the rows are unchanged, a second migration changes nothing, and a node that began on
// the old schema still reads and writes.
func TestDatabasesOfEveryVersionAreMigratedToTheNewest(t *testing.T) {
	versions, err := store.Versions(t.Context(), storetest.SQLite(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		t.Run(strconv.FormatInt(version, 10), func(t *testing.T) {
			eachEmptyURL(t, func(t *testing.T, address string) {
				if err := store.MigrateTo(t.Context(), address, version); err != nil {
					t.Fatal(err)
				}
				old, err := store.Dial(t.Context(), address)
				if err != nil {
					t.Fatal(err)
				}
				defer old.Close()
				tables := columnsOf(t, old)
				for i := range int64(3) {
					fillTables(t, old, tables, i+1)
				}
				before := dump(t, old, tables)
				after := dump(t, storetest.Open(t, address), tables)
				if !maps.EqualFunc(before, after, slices.Equal) {
					t.Errorf("before\n%v\nafter\n%v", before, after)
				}
				newest := storetest.Open(t, address)
				all := columnsOf(t, newest)
				once := dump(t, newest, all)
				if again := dump(t, storetest.Open(t, address), all); !maps.EqualFunc(once, again, slices.Equal) {
					t.Error("opened once more, it changed")
				}
				fillTables(t, old, tables, 4)
				if got := dump(t, newest, tables); len(got["setting"]) != 4 {
					t.Errorf("%d of 4 settings stand", len(got["setting"]))
				}
			})
		})
	}
}

// columnsOf lists the columns of each table with their types.
func columnsOf(t *testing.T, db *store.DB) map[string][][2]string {
	t.Helper()
	query := map[string]string{
		"sqlite": `SELECT t.name, c.name, c.type FROM sqlite_schema t JOIN pragma_table_info(t.name) c
			WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY t.name, c.name`,
		"postgres": `SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, column_name`,
	}[db.Dialect().Name]
	tables := map[string][][2]string{}
	forEachRow(t, db, query, func(row []any) {
		if name := row[0].(string); name != "schema_version" {
			tables[name] = append(tables[name], [2]string{row[1].(string), strings.ToUpper(row[2].(string))})
		}
	})
	return tables
}

func forEachRow(t *testing.T, db *store.DB, query string, row func(values []any)) {
	t.Helper()
	err := db.ViewOnce(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Query(t.Context(), query)
		if err != nil {
			return err
		}
		defer rows.Close()
		columns, err := rows.Columns()
		if err != nil {
			return err
		}
		for rows.Next() {
			values, into := make([]any, len(columns)), make([]any, len(columns))
			for i := range into {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				return err
			}
			row(values)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fillTables inserts row i into each table, one that others refer to before
// those. All numbers in it are i, so that what refers to a row finds it.
func fillTables(t *testing.T, db *store.DB, tables map[string][][2]string, i int64) {
	t.Helper()
	left := slices.Sorted(maps.Keys(tables))
	for len(left) > 0 {
		var refused []string
		var last error
		for _, table := range left {
			var names, marks []string
			var args []any
			for n, column := range tables[table] {
				names, marks = append(names, column[0]), append(marks, "?"+strconv.Itoa(n+1))
				switch column[1] {
				case "INTEGER", "BIGINT":
					args = append(args, i)
				case "TEXT":
					args = append(args, fmt.Sprintf("%s %d", column[0], i))
				case "BLOB", "BYTEA":
					args = append(args, []byte{byte(i), 0, 255})
				default:
					t.Fatalf("column %s of %s is of type %s", column[0], table, column[1])
				}
			}
			err := db.InTx(t.Context(), func(tx *store.Tx) error {
				_, err := tx.Exec(t.Context(), "INSERT INTO "+table+" ("+strings.Join(names, ", ")+") VALUES ("+strings.Join(marks, ", ")+")", args...)
				return err
			})
			if err != nil {
				refused, last = append(refused, table), err
			}
		}
		if len(refused) == len(left) {
			t.Fatalf("%v: %v", refused, last)
		}
		left = refused
	}
}

// dump returns all rows of the tables with the given columns.
func dump(t *testing.T, db *store.DB, tables map[string][][2]string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for table, columns := range tables {
		var names []string
		for _, c := range columns {
			names = append(names, c[0])
		}
		forEachRow(t, db, "SELECT "+strings.Join(names, ", ")+" FROM "+table, func(values []any) {
			all[table] = append(all[table], fmt.Sprint(values...))
		})
		slices.Sort(all[table])
	}
	return all
}

// served are the files as they were when they were first released.
var served = map[string]string{
	"00001_core.sql":         "b7a022eec28ed15c73339bcf7290261014681c879ab459290901a90df9e73673",
	"00002_access.sql":       "cdda52cc41526d976b03bb8814853ee40d1a7616bfdb93b1e4e180e8266ac27b",
	"00003_vault.sql":        "d0852d347072e986cf0a6fa2d2c8e897517f626ba28947619e33da55e21266b3",
	"00004_keypage.sql":      "54ab60ecaa3178ef63de137684f3d547da8039473ca89f513d2b61a5598a82eb",
	"00005_policy.sql":       "c8b33fd1efd261590513f55353fa405956ebdc90ad6ad67ed2144de489ebb891",
	"00006_container.sql":    "e2d3f44d45232aa24e3292ee8496717d30538b414de44e0214f38c2783346406",
	"00007_content.sql":      "5f2e96b4701a9ee9050ecf2ee7e4bc47f1c90cad70b21bac0224a3d77b9cf7c6",
	"00008_roll.sql":         "ab7d8f154c53425ae617369d52a75ce753dc63e154701d8bfd20318bc62495c6",
	"00009_audit.sql":        "b8d60936622331fdfadf58f76367c66d1358d6947ff3797d8dcbda61568ab201",
	"00010_geo.sql":          "86f5c702e9c08aa1e624309cbd77c7c4ea25604c986e1f071000f47a2f459989",
	"00013_backup.sql":       "0e3824f24042d6cce7f1948adc7f312e2ce04e814d4c071927f6c069bab00eea",
	"00014_availability.sql": "6316c41a347491cecc7d0e1e1c266599e70851e095057e08f92d8b5977885e17",
	"00015_purge.sql":        "e1c1c11151a6da85ecdf45c66e1a45b926f504f3a4b2efd9ae8b386b2d8ad8a2",
}

func TestReleasedSchemaFilesAreUnchanged(t *testing.T) {
	files := store.SchemaFiles()
	for name, want := range served {
		sum := sha256.Sum256([]byte(files[name]))
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%s has changed: databases stand at that version; make a new file (schema/README.md)", name)
		}
	}
}

// firstAdding is the first file of which new nodes may come to run beside old
// ones, lastIndexing the last one of a time when none had data in PostgreSQL.
const firstAdding, lastIndexing = 16, 20

// settled are statements of files up to lastIndexing that do more than add.
var settled = []string{"UPDATE roll SET begun = started"}

var (
	comment   = regexp.MustCompile(`--[^\n]*`)
	space     = regexp.MustCompile(`\s+`)
	makeTable = regexp.MustCompile(`^CREATE TABLE (\w+) \(.*\bPRIMARY KEY\b.*\)$`)
	makeIndex = regexp.MustCompile(`^CREATE (UNIQUE )?INDEX \w+ ON (\w+) \(.*$`)
	addColumn = regexp.MustCompile(`^ALTER TABLE \w+ ADD COLUMN \w+ (BIGINT|TEXT|\$\{BLOB\})( NOT NULL)? DEFAULT ('[^']*'|-?\d+)$`)
)

// nonAdditive returns the statements of a schema file that do more than add.
func nonAdditive(number int, text string) (list []string) {
	if !strings.HasPrefix(text, "-- +goose Up\n") || strings.Count(text, "+goose") != 1 {
		list = append(list, "a file goes up alone, in its transaction")
	}
	made := map[string]bool{}
	for _, statement := range strings.Split(comment.ReplaceAllString(text, ""), ";") {
		statement = strings.TrimSpace(space.ReplaceAllString(statement, " "))
		if statement == "" || addColumn.MatchString(statement) || number <= lastIndexing && slices.Contains(settled, statement) {
			continue
		}
		if found := makeTable.FindStringSubmatch(statement); found != nil {
			made[found[1]] = true
			continue
		}
		if found := makeIndex.FindStringSubmatch(statement); found != nil && (made[found[2]] || found[1] == "" && number <= lastIndexing) {
			continue
		}
		list = append(list, statement)
	}
	return list
}

func TestNewSchemaFilesOnlyAdd(t *testing.T) {
	for name, text := range store.SchemaFiles() {
		number, err := strconv.Atoi(name[:5])
		if err != nil {
			t.Fatal(err)
		}
		if number < firstAdding {
			continue
		}
		for _, statement := range nonAdditive(number, text) {
			t.Errorf("%s: %s\nschema/README.md says what a file may hold", name, statement)
		}
	}
	const up = "-- +goose Up\n"
	for _, text := range []string{ // the check itself
		up + "ALTER TABLE roll DROP COLUMN mark;", up + "ALTER TABLE roll ADD COLUMN mark BIGINT NOT NULL;", up + "UPDATE roll SET begun = started;",
		up + "ALTER TABLE roll ADD COLUMN a BIGINT NOT NULL DEFAULT random();", up + "DROP TABLE roll;", up + "CREATE INDEX a ON roll (id);",
		up + "CREATE TABLE a (id BIGINT);", "-- +goose Up\n-- +goose NO TRANSACTION\n", up + "ALTER TABLE roll RENAME TO rolls;",
		up + "CREATE TABLE a (id BIGINT PRIMARY KEY); DELETE FROM roll;",
	} {
		if nonAdditive(lastIndexing+1, text) == nil {
			t.Errorf("%q passes", text)
		}
	}
	fine := up + "CREATE TABLE a (id BIGINT PRIMARY KEY, -- drop it;\n b TEXT NOT NULL);\nCREATE UNIQUE INDEX c ON a (b) WHERE b <> '';\nALTER TABLE roll ADD COLUMN mark BIGINT NOT NULL DEFAULT 0;"
	if list := nonAdditive(lastIndexing+1, fine); list != nil {
		t.Errorf("%q does not pass", list)
	}
}

func TestMigrationWaitsForATableWithoutBlockingOthers(t *testing.T) {
	address := storetest.PostgresURL(t)
	db := storetest.Open(t, address)
	holding := func(while func()) {
		inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
			if _, err := tx.Exec(ctx, "LOCK TABLE schema_version IN ACCESS EXCLUSIVE MODE"); err != nil {
				return err
			}
			while()
			return nil
		})
	}
	restore := store.HurryMigrations(20*time.Millisecond, time.Millisecond, 3)
	holding(func() {
		_, err := store.Open(t.Context(), address)
		if _, _, hint := fail.Public(err); !fail.Is(err, api.Unavailable) || !strings.Contains(hint, "has locked a table") {
			t.Errorf("%v, hint %q", err, hint)
		}
	})
	restore()
	defer store.HurryMigrations(20*time.Millisecond, time.Millisecond, 1000)()
	opened := make(chan error)
	holding(func() {
		go func() {
			late, err := store.Open(t.Context(), address)
			if err == nil {
				err = late.Close()
			}
			opened <- err
		}()
		for waits := int64(0); waits == 0; { // until it waits for the lock once
			forEachRow(t, db, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'schema_version'::regclass", func(row []any) { waits = row[0].(int64) })
		}
	})
	if err := <-opened; err != nil {
		t.Errorf("once the table was free: %v", err)
	}
}

package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"

	"keyroll/api"
	"keyroll/internal/fail"
)

// unindexed is the tables of an SQLite database of which an index is wrong.
// Statements read them from end to end, so that what their rows hold stays
// readable. Nothing repairs an index by itself: the file is the only evidence of
// what happened to it.
type unindexed struct {
	mu     sync.RWMutex
	tables []string
}

// set records what a check of a table found.
func (u *unindexed) set(table string, wrong bool) (changed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if wrong == slices.Contains(u.tables, table) {
		return false
	}
	if wrong {
		u.tables = append(slices.Clone(u.tables), table)
	} else {
		u.tables = slices.DeleteFunc(slices.Clone(u.tables), func(t string) bool { return t == table })
	}
	return true
}

// readsOf finds the tables in which a statement looks for rows, each with its alias.
// Statements write the words of SQL in capitals and names in small letters.
var readsOf = regexp.MustCompile(`\b(?:FROM|JOIN|UPDATE)\s+([a-z_]+)\b(?:\s+(?:AS\s+)?[a-z_]+\b)?(\s+NOT INDEXED)?`)

// rewrite returns a statement that uses no index of the tables.
func (u *unindexed) rewrite(text string) string {
	tables := u.all()
	if len(tables) == 0 {
		return text
	}
	return readsOf.ReplaceAllStringFunc(text, func(read string) string {
		match := readsOf.FindStringSubmatch(read)
		if match[2] != "" || !slices.Contains(tables, match[1]) {
			return read
		}
		return read + " NOT INDEXED"
	})
}

// smallTable is up to how many rows a table is compared with its indexes when
// the database is opened.
const smallTable = 1000

// checkSmall compares the small tables with their indexes: among them are those
// from which a start takes secrets and settings, which must not be made a second
// time because an index has lost them.
func (db *DB) checkSmall(ctx context.Context) error {
	tables, err := db.Tables(ctx)
	if err != nil {
		return err
	}
	for _, table := range tables {
		var rows int64
		err := db.ViewOnce(ctx, func(tx *Tx) error {
			return tx.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM `+table+` NOT INDEXED LIMIT ?1)`, smallTable+1).Scan(&rows)
		})
		if err == nil && rows > 0 && rows <= smallTable {
			_, _ = db.CheckTable(ctx, table) // logged; what rows hold stays readable
		}
	}
	return nil
}

// Contradiction is the failure of a transaction that found in a row something else
// than an index has led it to expect, and changed nothing.
func Contradiction(format string, args ...any) *fail.Error {
	return fail.New(api.Damaged, "an index of the database contradicts its rows: "+format, args...).
		WithHint("nothing is deleted until they agree; docs/damage.md says how to rebuild an index from the rows")
}

// DeleteRows runs a deletion once for each of args, of which the first is the id of
// a row that an index led to. The statement asks the row itself what the index said
// of it: where it deletes none, this fails as Contradiction says. what is the row.
func (tx *Tx) DeleteRows(ctx context.Context, statement string, args [][]any, what string) error {
	deleted, err := tx.ExecMany(ctx, statement, args)
	if err != nil {
		return fmt.Errorf("delete %s: %w", what, err)
	}
	for i, n := range deleted {
		if n != 1 {
			return Contradiction("%d is %s by the index alone", args[i][0], what)
		}
	}
	return nil
}

// unsoundRead is the failure of a transaction at a page that is not what the
// database wrote, with the statement that met it.
type unsoundRead struct {
	error
	text string
}

func (e unsoundRead) Unwrap() error { return e.error }

// foundWrong compares the tables in which a failed statement looked for rows with
// their indexes. It reports whether one is wrong that was not known to be: the
// same statement then reads the table without.
func (db *DB) foundWrong(ctx context.Context, err error) (found bool) {
	var at unsoundRead
	if !errors.As(err, &at) {
		return false
	}
	for _, match := range readsOf.FindAllStringSubmatch(at.text, -1) {
		if !slices.Contains(db.unindexed.all(), match[1]) {
			_, _ = db.CheckTable(ctx, match[1])
			found = found || slices.Contains(db.unindexed.all(), match[1])
		}
	}
	return found
}

// all returns the tables of which an index is wrong.
func (u *unindexed) all() []string {
	if u == nil {
		return nil
	}
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.tables
}

// checked records what the check of a table found, and logs it once. It reports
// false where the rows themselves cannot be read: then no index is to blame.
func (db *DB) checked(ctx context.Context, table string, faults []string) (readable bool) {
	if db.unindexed == nil {
		return true
	}
	wrong := len(faults) > 0
	if wrong {
		err := db.run(ctx, db.reader, db.viewOptions(), func(tx *Tx) error {
			var rows int64
			return tx.QueryRow(ctx, `SELECT count(*) FROM `+table+` NOT INDEXED`).Scan(&rows)
		})
		if err != nil {
			return false
		}
	}
	if !db.unindexed.set(table, wrong) {
		return true
	}
	if wrong {
		slog.Error("an index of the database is wrong; the table is read without its indexes, slower, until it is repaired as docs/damage.md says",
			"table", table, "faults", strings.Join(faults[:min(shownFaults, len(faults))], "; "))
	} else {
		slog.Info("the indexes of the database's table are sound again", "table", table)
	}
	return true
}

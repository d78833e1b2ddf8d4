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

// unindexed lists the tables of an SQLite database that have a wrong index. Statements
// read them from end to end, so that their rows stay readable. No index is repaired
// automatically: the file is the only evidence of what happened to it.
type unindexed struct {
	mu     sync.RWMutex
	tables []string
}

// set records the result of a check of a table.
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

// readsOf finds the tables that a statement reads, each with its alias. Statements have
// the words of SQL in capitals and names in lower case.
var readsOf = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\b(?:FROM|JOIN|UPDATE)\s+([a-z_]+)\b(?:\s+(?:AS\s+)?[a-z_]+\b)?(\s+NOT INDEXED)?`)
})

// rewrite returns a statement that uses no index of the tables.
func (u *unindexed) rewrite(text string) string {
	tables := u.wrong()
	if len(tables) == 0 {
		return text
	}
	return readsOf().ReplaceAllStringFunc(text, func(read string) string {
		match := readsOf().FindStringSubmatch(read)
		if match[2] != "" || !slices.Contains(tables, match[1]) {
			return read
		}
		return read + " NOT INDEXED"
	})
}

// smallTable is the number of rows up to which a table is compared with its indexes when
// the database is opened.
const smallTable = 1000

// checkSmall compares the small tables with their indexes. Among them are those with
// the secrets and settings that a start reads, which must not be created a second time
// because an index has lost them.
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
			_, _ = db.CheckTable(ctx, table) // logged; the rows stay readable
		}
	}
	return nil
}

// Contradiction returns the error of a transaction that found a row which contradicts an
// index, and that changed nothing.
func Contradiction(format string, args ...any) *fail.Error {
	return fail.New(api.Damaged, "an index of the database contradicts its rows: "+format, args...).
		WithHint("nothing is deleted until they agree; docs/damage.md says how to rebuild an index from the rows")
}

// DeleteRows runs a deletion once for each of args, whose first value is the id of a row
// that was found by an index. The statement must compare the row with the condition of
// that index: if it deletes no row, DeleteRows fails with Contradiction. what describes
// the row.
func (tx *Tx) DeleteRows(ctx context.Context, statement string, args [][]any, what string) error {
	deleted, err := tx.ExecMany(ctx, statement, args)
	if err != nil {
		return fmt.Errorf("delete %s: %w", what, err)
	}
	for i, n := range deleted {
		if n != 1 {
			return Contradiction("%d is %s only according to an index", args[i][0], what)
		}
	}
	return nil
}

// unsoundRead is the failure of a transaction at a damaged page, with the statement that
// read it.
type unsoundRead struct {
	error
	text string
}

func (e unsoundRead) Unwrap() error { return e.error }

// foundWrongIndex compares the tables of a failed statement with their indexes. It
// reports whether it found a wrong index that was not known before: the same statement
// then reads the table without its indexes.
func (db *DB) foundWrongIndex(ctx context.Context, err error) (found bool) {
	var at unsoundRead
	if !errors.As(err, &at) {
		return false
	}
	for _, match := range readsOf().FindAllStringSubmatch(at.text, -1) {
		if !slices.Contains(db.unindexed.wrong(), match[1]) {
			_, _ = db.CheckTable(ctx, match[1])
			found = found || slices.Contains(db.unindexed.wrong(), match[1])
		}
	}
	return found
}

// wrong returns the tables that have a wrong index.
func (u *unindexed) wrong() []string {
	if u == nil {
		return nil
	}
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.tables
}

// recordCheck records the result of the check of a table, and logs it once. It returns
// false if the rows cannot be read even without the indexes.
func (db *DB) recordCheck(ctx context.Context, table string, faults []string) (readable bool) {
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
			"table", table, "faults", strings.Join(faults[:min(maxShownFaults, len(faults))], "; "))
	} else {
		slog.Info("the indexes of the database's table are sound again", "table", table)
	}
	return true
}

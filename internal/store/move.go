package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
)

// Moved is what Move moved.
type Moved struct {
	From, To string // without what may be a password
	Rows     int64
	Tables   []MovedTable // in the order in which they were written
}

// MovedTable is a table that holds the same rows in both databases.
type MovedTable struct {
	Name   string
	Rows   int64
	Digest string // SHA-256 of its rows in the order of its key, hexadecimal
}

// Move copies the SQLite database at from into the empty PostgreSQL database at
// to, reads both, and makes the second the one to use: from then on Open refuses
// the first. The caller keeps every other process away from the first.
//
// Until Move has ended, Open refuses the target, and but for Move's last
// instruction the source stays the one to use; after a failure or a crash the
// same Move begins anew. If it was that last instruction, the same Move compares
// once more and ends. At no time are there two databases to use. Which tables
// there are is read from the source. It holds a row of each side at a time.
// progress is told how many rows of how many are done, each counted once when
// it is copied and once when it is compared.
func Move(ctx context.Context, from, to string, progress func(stage string, done, total int64)) (Moved, error) {
	source, err := dial(ctx, from)
	if err != nil {
		return Moved{}, err
	}
	defer source.Close()
	target, err := dial(ctx, to)
	if err != nil {
		return Moved{}, err
	}
	defer target.Close()
	if source.dialect.Name != "sqlite" || target.dialect.Name != "postgres" {
		return Moved{}, fail.New(api.InvalidArgument, "move database: only a move from SQLite to PostgreSQL is supported, not from %s to %s", source.dialect.Name, target.dialect.Name)
	}
	m := mover{source: source, target: target, progress: progress}
	if err := m.run(ctx); err != nil {
		return Moved{}, fmt.Errorf("move database: %w", err)
	}
	return m.moved, nil
}

// mover is one Move.
type mover struct {
	source, target *DB
	progress       func(stage string, done, total int64)
	tables         []table
	moved          Moved
	done, total    int64
}

func (m *mover) run(ctx context.Context) error {
	if err := m.source.bringUpToDate(ctx); err != nil {
		return err
	}
	finished, err := m.begin(ctx)
	if err != nil {
		return err
	}
	if err := m.target.bringUpToDate(ctx); err != nil {
		return err
	}
	fault.Point("database.schema")
	if m.tables, err = m.source.tables(ctx); err != nil {
		return err
	}
	if err := m.fits(ctx); err != nil {
		return err
	}
	m.moved = Moved{From: m.source.shown, To: m.target.shown}
	for _, t := range m.tables {
		m.total += 2 * t.rows
	}
	if !finished {
		if err := m.copy(ctx); err != nil {
			return err
		}
	}
	if err := m.compare(ctx); err != nil {
		return err
	}
	fault.Point("database.compared")
	if err := m.source.setMove(ctx, "", left, m.target.shown); err != nil {
		return err
	}
	fault.Point("database.left")
	err = m.target.InTx(ctx, func(tx *Tx) error {
		_, err := tx.Exec(ctx, "DROP TABLE "+moveTable)
		return err
	})
	fault.Point("database.done")
	return err
}

// begin marks both databases. finished says that an earlier Move had compared
// everything and was not to end.
func (m *mover) begin(ctx context.Context) (finished bool, err error) {
	from, err := m.source.moveOf(ctx)
	if err != nil {
		return false, err
	}
	to, err := m.target.moveOf(ctx)
	if err != nil {
		return false, err
	}
	switch {
	case to.state == arriving && to.id == from.id:
		return from.state == left, nil
	case from.state == left:
		return false, m.source.refuseMoved(ctx)
	case to.state != "":
		return false, fail.New(api.Conflict, "%s holds the unfinished move of another database", m.target.shown).
			WithHint("name an empty database, or drop this one and create it again")
	}
	if err := m.empty(ctx); err != nil {
		return false, err
	}
	id := rand.Text()
	if err := m.source.setMove(ctx, id, leaving, m.target.shown); err != nil {
		return false, err
	}
	fault.Point("database.noted")
	err = m.target.setMove(ctx, id, arriving, m.source.shown)
	fault.Point("database.begun")
	return false, err
}

// setMove writes the row of moveTable; an empty id leaves the one that is there.
func (db *DB) setMove(ctx context.Context, id, state, other string) error {
	return db.InTx(ctx, func(tx *Tx) error {
		if id == "" {
			_, err := tx.Exec(ctx, "UPDATE "+moveTable+" SET state = ?1, other = ?2", state, other)
			return err
		}
		for _, statement := range []string{
			"CREATE TABLE IF NOT EXISTS " + moveTable + " (id TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL, other TEXT NOT NULL)",
			"DELETE FROM " + moveTable,
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "INSERT INTO "+moveTable+" (id, state, other) VALUES (?1, ?2, ?3)", id, state, other)
		return err
	})
}

// empty refuses a target whose schema holds anything.
func (m *mover) empty(ctx context.Context) error {
	return m.target.View(ctx, func(tx *Tx) error {
		var things int64
		err := tx.QueryRow(ctx, "SELECT count(*) FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())").Scan(&things)
		if err == nil && things > 0 {
			err = fail.New(api.Conflict, "%s is not empty", m.target.shown).WithHint("name an empty database; nothing was changed in either")
		}
		return err
	})
}

// fits refuses a target in which the source's tables are not all, and as in the
// source.
func (m *mover) fits(ctx context.Context) error {
	theirs, err := m.target.columns(ctx)
	if err != nil {
		return err
	}
	for _, t := range m.tables {
		if len(theirs[t.name]) == 0 {
			return m.misfit("table %s is missing in %s", t.name, m.target.shown)
		}
		if len(theirs[t.name]) != len(t.columns) {
			return m.misfit("table %s of %s has other columns", t.name, m.target.shown)
		}
		for _, c := range t.columns {
			if theirs[t.name][c.name] != c.kind {
				return m.misfit("column %s of table %s is missing in %s or has another type", c.name, t.name, m.target.shown)
			}
		}
	}
	return nil
}

// misfit is why a target cannot be used as it is.
func (m *mover) misfit(format string, args ...any) error {
	return fail.New(api.Conflict, format, args...).
		WithHint("drop that database, create it again and repeat the move; until then, use %s", m.source.shown)
}

// copy fills the target, which an earlier Move may have half filled.
func (m *mover) copy(ctx context.Context) error {
	if err := m.target.InTx(ctx, func(tx *Tx) error {
		_, err := tx.Exec(ctx, "TRUNCATE "+names(m.tables))
		return err
	}); err != nil {
		return err
	}
	for i := range m.tables {
		t := &m.tables[i]
		before := m.done
		err := m.target.InTx(ctx, func(to *Tx) error {
			m.done = before
			return m.source.View(ctx, func(from *Tx) error {
				rows, err := t.read(ctx, from, "")
				if err != nil {
					return err
				}
				defer rows.Close()
				source := &reader{rows: rows, table: t, row: m.row("copy " + t.name)}
				return to.copyFrom(ctx, t, source)
			})
		})
		var refused *pgconn.PgError
		if errors.As(err, &refused) && m.target.named(err) == err {
			return fmt.Errorf("table %s: %w", t.name, m.misfit("PostgreSQL refuses a row: %s", refused.Message))
		}
		if err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		fault.Point("database.table")
	}
	return m.target.InTx(ctx, func(tx *Tx) error { // plans go by it from the first query on
		_, err := tx.Exec(ctx, "ANALYZE "+names(m.tables))
		return err
	})
}

// compare reads both databases and refuses a difference.
func (m *mover) compare(ctx context.Context) error {
	m.done = m.total / 2
	for i := range m.tables {
		t := &m.tables[i]
		ours, err := m.digest(ctx, m.source, t, "", func() {})
		if err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		theirs, err := m.digest(ctx, m.target, t, ` COLLATE "C"`, m.row("compare "+t.name))
		if err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		if ours != theirs {
			return m.misfit("table %s: the copy differs: %d rows were read back, and %d were written", t.name, theirs.Rows, ours.Rows)
		}
		m.moved.Tables = append(m.moved.Tables, ours)
		m.moved.Rows += ours.Rows
	}
	return nil
}

// told is how many rows go by between two calls of progress.
const told = 256

// row returns what is called for each row of one stage.
func (m *mover) row(stage string) func() {
	return func() {
		if m.done++; m.done%told == 0 || m.done == m.total {
			m.progress(stage, m.done, m.total)
		}
	}
}

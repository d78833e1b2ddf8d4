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

// Moved is the result of Move.
type Moved struct {
	From, To string // addresses without passwords
	Rows     int64
	Tables   []MovedTable // in the order in which they were written
}

// MovedTable is a table that holds the same rows in both databases.
type MovedTable struct {
	Name   string
	Rows   int64
	Digest string // SHA-256 of its rows in the order of its key, hexadecimal
}

// Move copies the SQLite database at from into the empty PostgreSQL database at to,
// compares both, and makes the second the one to use: from then on Open refuses the
// first. The caller must keep every other process from using the first.
//
// Until Move has ended, Open refuses the target, and up to Move's last step the source
// stays the one to use; after a failure or a crash the same Move must be repeated and
// begins again. If only the last step failed, the repeated Move compares once more and
// ends. There are never two databases to use. The list of tables is read from the
// source. Move holds one row of each side in memory. progress gets the number of rows
// done and the total; each row counts once when it is copied and once when it is
// compared.
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

// mover is the state of one Move.
type mover struct {
	source, target *DB
	progress       func(stage string, done, total int64)
	tables         []table
	moved          Moved
	done, total    int64
}

func (m *mover) run(ctx context.Context) error {
	if err := m.source.updateSchema(ctx); err != nil {
		return err
	}
	finished, err := m.begin(ctx)
	if err != nil {
		return err
	}
	if err := m.target.updateSchema(ctx); err != nil {
		return err
	}
	fault.Point("database.schema")
	if m.tables, err = m.source.tables(ctx); err != nil {
		return err
	}
	if err := m.checkTargetSchema(ctx); err != nil {
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
	if err := m.source.setMove(ctx, "", moved, m.target.shown); err != nil {
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

// begin writes the state of the move into both databases. finished says that an
// earlier Move has compared everything and only its last step is missing.
func (m *mover) begin(ctx context.Context) (finished bool, err error) {
	from, err := m.source.readMove(ctx)
	if err != nil {
		return false, err
	}
	to, err := m.target.readMove(ctx)
	if err != nil {
		return false, err
	}
	switch {
	case to.state == moveTarget && to.id == from.id:
		return from.state == moved, nil
	case from.state == moved:
		return false, m.source.checkNotMoved(ctx)
	case to.state != "":
		return false, fail.New(api.Conflict, "%s holds the unfinished move of another database", m.target.shown).
			WithHint("name an empty database, or drop this one and create it again")
	}
	if err := m.checkEmpty(ctx); err != nil {
		return false, err
	}
	id := rand.Text()
	if err := m.source.setMove(ctx, id, moveSource, m.target.shown); err != nil {
		return false, err
	}
	fault.Point("database.noted")
	err = m.target.setMove(ctx, id, moveTarget, m.source.shown)
	fault.Point("database.begun")
	return false, err
}

// setMove writes the row of moveTable; an empty id keeps the id of an existing row.
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

// checkEmpty refuses a target whose schema is not empty.
func (m *mover) checkEmpty(ctx context.Context) error {
	return m.target.View(ctx, func(tx *Tx) error {
		var objects int64
		err := tx.QueryRow(ctx, "SELECT count(*) FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())").Scan(&objects)
		if err == nil && objects > 0 {
			err = fail.New(api.Conflict, "%s is not empty", m.target.shown).WithHint("name an empty database; nothing was changed in either")
		}
		return err
	})
}

// checkTargetSchema refuses a target that does not have all tables of the source with
// the same columns.
func (m *mover) checkTargetSchema(ctx context.Context) error {
	theirs, err := m.target.columns(ctx)
	if err != nil {
		return err
	}
	for _, t := range m.tables {
		if len(theirs[t.name]) == 0 {
			return m.unusable("table %s is missing in %s", t.name, m.target.shown)
		}
		if len(theirs[t.name]) != len(t.columns) {
			return m.unusable("table %s of %s has other columns", t.name, m.target.shown)
		}
		for _, c := range t.columns {
			if theirs[t.name][c.name] != c.kind {
				return m.unusable("column %s of table %s is missing in %s or has another type", c.name, t.name, m.target.shown)
			}
		}
	}
	return nil
}

// unusable is the error for a target that cannot be used.
func (m *mover) unusable(format string, args ...any) error {
	return fail.New(api.Conflict, format, args...).
		WithHint("drop that database, create it again and repeat the move; until then, use %s", m.source.shown)
}

// copy fills the target, which an earlier Move may have half filled.
func (m *mover) copy(ctx context.Context) error {
	if err := m.target.InTx(ctx, func(tx *Tx) error {
		_, err := tx.Exec(ctx, "TRUNCATE "+tableNames(m.tables))
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
				source := &reader{rows: rows, table: t, row: m.countRow("copy " + t.name)}
				return to.copyFrom(ctx, t, source)
			})
		})
		var refused *pgconn.PgError
		if errors.As(err, &refused) && m.target.classify(err) == err {
			return fmt.Errorf("table %s: %w", t.name, m.unusable("PostgreSQL refuses a row: %s", refused.Message))
		}
		if err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		fault.Point("database.table")
	}
	return m.target.InTx(ctx, func(tx *Tx) error { // for the plans of the first queries
		_, err := tx.Exec(ctx, "ANALYZE "+tableNames(m.tables))
		return err
	})
}

// compare reads both databases and fails if they differ.
func (m *mover) compare(ctx context.Context) error {
	m.done = m.total / 2
	for i := range m.tables {
		t := &m.tables[i]
		ours, err := m.digest(ctx, m.source, t, "", func() {})
		if err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		theirs, err := m.digest(ctx, m.target, t, ` COLLATE "C"`, m.countRow("compare "+t.name))
		if err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		if ours != theirs {
			return m.unusable("table %s: the copy differs: it has %d rows, the source has %d", t.name, theirs.Rows, ours.Rows)
		}
		m.moved.Tables = append(m.moved.Tables, ours)
		m.moved.Rows += ours.Rows
	}
	return nil
}

// progressInterval is the number of rows between two calls of progress.
const progressInterval = 256

// countRow returns a function that must be called for each row of one stage.
func (m *mover) countRow(stage string) func() {
	return func() {
		if m.done++; m.done%progressInterval == 0 || m.done == m.total {
			m.progress(stage, m.done, m.total)
		}
	}
}

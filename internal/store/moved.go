package store

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/fail"
)

// moveTable stands in the database that Move reads and in the one that it
// writes, outside the schema, and holds one row. It is the first thing that
// stands in the target and the last that goes from it; in the source it stays.
const moveTable = "database_move"

// States of a database in moveTable.
const (
	leaving  = "leaving"  // it is being copied, and still the one to use
	left     = "left"     // it was moved; the other one is the one to use
	arriving = "arriving" // what is in it is not complete, or not compared
)

// move is the row of moveTable.
type move struct {
	id    string // the same in both databases
	state string // empty: no table, no move
	other string // the other database
}

// moveOf reads what a database says of its move.
func (db *DB) moveOf(ctx context.Context) (m move, err error) {
	err = db.View(ctx, func(tx *Tx) error {
		var tables int64
		if err := tx.QueryRow(ctx, db.dialect.hasTable, moveTable).Scan(&tables); err != nil || tables == 0 {
			return err
		}
		return tx.QueryRow(ctx, "SELECT id, state, other FROM "+moveTable).Scan(&m.id, &m.state, &m.other)
	})
	if err != nil {
		return move{}, fmt.Errorf("open database %s: %w", db.shown, err)
	}
	return m, nil
}

// refuseMoved refuses a database that is not the one to use.
func (db *DB) refuseMoved(ctx context.Context) error {
	m, err := db.moveOf(ctx)
	switch {
	case err != nil:
		return err
	case m.state == left:
		return fail.New(api.Conflict, "database %s was moved to %s", db.shown, m.other).
			WithHint("use that one: --database or KEYROLL_DATABASE; nothing was changed")
	case m.state == arriving:
		return fail.New(api.Conflict, "the move of a database into %s has not finished", db.shown).
			WithHint("repeat keyroll database move; until it has finished, use the database that is being moved")
	}
	return nil
}

// MovedTo returns where the database at address was moved to; empty: it was not,
// and is one to use.
func MovedTo(ctx context.Context, address string) (other string, err error) {
	db, err := dial(ctx, address)
	if err != nil {
		return "", err
	}
	defer db.Close()
	m, err := db.moveOf(ctx)
	if m.state != left {
		return "", err
	}
	return m.other, err
}

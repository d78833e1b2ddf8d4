package store

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/fail"
)

// moveTable is a table with one row in the source and in the target of Move, outside
// the schema. It is created first in the target and dropped last; in the source it
// stays.
const moveTable = "database_move"

// States of a database in moveTable.
const (
	moveSource = "leaving"  // it is being copied, and is still the one to use
	moved      = "left"     // it was moved; the other one is the one to use
	moveTarget = "arriving" // it is not complete, or not compared
)

// move is the row of moveTable.
type move struct {
	id    string // the same in both databases
	state string // empty: no table, no move
	other string // the other database
}

// readMove reads the state of a database's move.
func (db *DB) readMove(ctx context.Context) (m move, err error) {
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

// checkNotMoved refuses a database that is not the one to use.
func (db *DB) checkNotMoved(ctx context.Context) error {
	m, err := db.readMove(ctx)
	switch {
	case err != nil:
		return err
	case m.state == moved:
		return fail.New(api.Conflict, "database %s was moved to %s", db.shown, m.other).
			WithHint("use that one: --database or KEYROLL_DATABASE; nothing was changed")
	case m.state == moveTarget:
		return fail.New(api.Conflict, "the move of a database into %s has not finished", db.shown).
			WithHint("repeat keyroll database move; until it has finished, use the database that is being moved")
	}
	return nil
}

// MovedTo returns the address to which the database at address was moved, empty if it
// was not moved.
func MovedTo(ctx context.Context, address string) (other string, err error) {
	db, err := dial(ctx, address)
	if err != nil {
		return "", err
	}
	defer db.Close()
	m, err := db.readMove(ctx)
	if m.state != moved {
		return "", err
	}
	return m.other, err
}

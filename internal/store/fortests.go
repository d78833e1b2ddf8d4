package store

import (
	"context"
	"errors"
)

// ForTests makes the transactions of a DB end as they seldom do, so that tests
// see what the callers of InTx do about it. Production never sets it.
type ForTests struct {
	// RunTwice rolls a transaction back when its function has succeeded, as a
	// database does that breaks it off at its commit; the function is run again,
	// and committed. A View runs its function twice.
	RunTwice bool
	// LoseAnswer, if not nil, is called after each commit with the context of its InTx; when it returns true,
	// InTx fails as if the connection had broken before the answer arrived.
	LoseAnswer func(ctx context.Context) bool
	// UseIndexes has statements use indexes that are known to be wrong, as they
	// use those that are not known yet.
	UseIndexes bool
	// CheckNothing has no table compared with its indexes: each is found sound.
	CheckNothing bool
}

// SetForTests is for tests, before db is used.
func (db *DB) SetForTests(f ForTests) { db.forTests = f }

// errRunTwice rolls back a transaction that has succeeded, for ForTests.
var errRunTwice = errors.New("store: the function of a transaction is run twice, for a test")

// twice makes fn fail once after it has succeeded.
func twice(fn func(tx *Tx) error) func(tx *Tx) error {
	succeeded := false
	return func(tx *Tx) error {
		if err := fn(tx); err != nil || tx.failed != nil || succeeded {
			return err
		}
		succeeded = true
		return errRunTwice
	}
}

// errAnswerLost is why a commit whose answer a test has lost failed.
var errAnswerLost = errors.New("commit: the answer of the database is lost, for a test")

// IsAnswerLost reports whether err is of a commit that LoseAnswer made fail: it
// has happened.
func IsAnswerLost(err error) bool { return errors.Is(err, errAnswerLost) }

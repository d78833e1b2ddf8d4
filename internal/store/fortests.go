package store

import (
	"context"
	"errors"
)

// ForTests makes the transactions of a DB end in rare ways, so that tests cover how the
// callers of InTx handle them, and shows tests their statements. A node that serves users
// never sets it.
type ForTests struct {
	// RunTwice rolls a transaction back after its function has succeeded, like a
	// database that aborts it at its commit; then the function is run again and
	// committed. A View runs its function twice.
	RunTwice bool
	// LoseAnswer, unless nil, is called after each commit with the context of its
	// InTx. If it returns true, InTx fails as if the connection had been lost before
	// the answer arrived.
	LoseAnswer func(ctx context.Context) bool
	// UseIndexes makes statements use indexes even if they are known to be wrong.
	UseIndexes bool
	// CheckNothing skips the comparison of tables with their indexes, as if all were
	// sound.
	CheckNothing bool
	// Observe, unless nil, is called with each statement of a transaction, the first of
	// which is BEGIN.
	Observe func(query string)
	// SkipAppends, unless nil, is called by each Append. If it returns true, Append does
	// nothing and succeeds: a benchmark measures so what the entries of reads cost.
	SkipAppends func() bool
}

// SetForTests is only for tests. It must be called before db is used.
func (db *DB) SetForTests(f ForTests) { db.forTests = f }

// errRunTwice rolls back a transaction that has succeeded, for ForTests.
var errRunTwice = errors.New("store: the function of a transaction is run twice, for a test")

// failOnce makes fn fail once after it has succeeded.
func failOnce(fn func(tx *Tx) error) func(tx *Tx) error {
	succeeded := false
	return func(tx *Tx) error {
		if err := fn(tx); err != nil || tx.failed != nil || succeeded {
			return err
		}
		succeeded = true
		return errRunTwice
	}
}

// errAnswerLost is the cause of the failure of a commit whose answer a test suppressed.
var errAnswerLost = errors.New("commit: the answer of the database is lost, for a test")

// IsAnswerLost reports whether err comes from a commit that succeeded and whose answer
// LoseAnswer suppressed.
func IsAnswerLost(err error) bool { return errors.Is(err, errAnswerLost) }

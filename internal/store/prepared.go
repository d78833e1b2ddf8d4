package store

import (
	"context"
	"errors"

	"keyroll/api"
	"keyroll/internal/fail"
)

// Prepared is a change whose work outside of transactions is done: vaults have wrapped
// keys, content has been stored. A type that implements it has a method Commit, which
// writes the change in a transaction of its caller and may run more than once.
type Prepared interface {
	// Prepare does that work again, after Commit has failed with ErrOutdated.
	Prepare(ctx context.Context) error
	// Close ends the change. It zeroes keys and deletes stored content that nothing
	// will refer to.
	Close(ctx context.Context, outcome Outcome)
}

// Outcome is how a prepared change ended.
type Outcome int

// The outcomes of a prepared change. A change whose commit was not answered may have
// been committed: then the outcome is Unknown.
const (
	NotCommitted Outcome = iota
	Committed
	Unknown
)

// ErrOutdated is the failure of a prepared change if what it was prepared from has
// changed. The transaction is rolled back, and the change has to be prepared again.
var ErrOutdated = errors.New("store: the change was prepared from rows that have changed")

// maxAttempts bounds how often work starts over because it is outdated. Changes of one
// policy, container or key page wait for each other; a roll and a fold change a page
// once, a refresh is rare.
const maxAttempts = 10

// Retry calls try until it returns anything but ErrOutdated, at most maxAttempts times;
// then it fails Conflict, because of ErrOutdated.
func Retry(try func() error) error {
	var err error
	for range maxAttempts {
		if err = try(); !errors.Is(err, ErrOutdated) {
			return err
		}
	}
	return fail.New(api.Conflict, "other requests changed the same keys, policies or content %d times in the meantime; nothing was changed", maxAttempts).
		WithHint("try again").Because(err)
}

// Commit runs fn, which commits p and writes whatever belongs to the same transaction,
// as InTx does. If p is outdated, it is prepared again. Commit closes p, which may be nil
// for a change that needs no work outside of the transaction.
func (db *DB) Commit(ctx context.Context, p Prepared, fn func(tx *Tx) error) error {
	return commit(ctx, p, func(_ context.Context, tx *Tx) error { return fn(tx) }, func(c change) error { return db.runAlone(ctx, c) })
}

// CommitShared is Commit for a small change of which many are made at the same time: one
// transaction may serve several, as Append does. They run in the order of order, which is
// the id of the first row that fn locks, so that transactions of several nodes do not wait
// for each other in a circle. fn has to use the context that it is given.
func (db *DB) CommitShared(ctx context.Context, p Prepared, order int64, fn func(ctx context.Context, tx *Tx) error) error {
	return commit(ctx, p, fn, func(c change) error {
		c.order = order
		return db.share(ctx, db.commits, c)
	})
}

// commit runs fn with run, which runs a change in a transaction.
func commit(ctx context.Context, p Prepared, fn func(ctx context.Context, tx *Tx) error, run func(c change) error) error {
	outcome, outdated := NotCommitted, false
	if p != nil {
		defer func() { p.Close(ctx, outcome) }()
	}
	return Retry(func() error {
		if outdated && p != nil {
			if err := p.Prepare(ctx); err != nil {
				return err
			}
		}
		outdated = true
		err := run(change{undone: func() { outcome = NotCommitted }, fn: func(ctx context.Context, tx *Tx) error {
			outcome = NotCommitted // fn may run again
			if err := fn(ctx, tx); err != nil {
				return err
			}
			outcome = Unknown
			return nil
		}})
		if err == nil {
			outcome = Committed
		}
		return err
	})
}

// errDryRun rolls back the transaction of a dry run.
var errDryRun = errors.New("store: a dry run")

// DryRun is Commit in a transaction that is rolled back.
func (db *DB) DryRun(ctx context.Context, p Prepared, fn func(tx *Tx) error) error {
	err := db.Commit(ctx, p, func(tx *Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return errDryRun
	})
	if errors.Is(err, errDryRun) {
		return nil
	}
	return err
}

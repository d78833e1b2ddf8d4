package store

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"keyroll/internal/together"
)

// How many calls one transaction serves: it bounds how long each of them waits, and how long
// the transaction holds its locks.
const (
	maxAppends = 128
	maxCommits = 32
)

// maxFailed is how many calls of a shared transaction may fail before the others are run
// in transactions of their own.
const maxFailed = 3

// change is what a call of Append or CommitShared does.
type change struct {
	order int64 // the changes of a transaction run in this order
	fn    func(ctx context.Context, tx *Tx) error
	// undone is called after fn has succeeded in a transaction that was rolled back.
	undone func()
}

type sharing = together.Call[change]

// errAlone makes a change run in a transaction of its own, after its function, or those of
// several other changes, have failed.
var errAlone = errors.New("store: the shared transaction was rolled back")

// shareTransactions prepares the calls of Append and CommitShared.
func (db *DB) shareTransactions() {
	db.appends = together.New(maxAppends, db.serve)
	db.commits = together.New(maxCommits, db.serve)
}

// Append is InTx for a function that only adds rows. Calls that arrive while the database
// commits are committed together afterwards, so that one wait for stable storage serves
// them all; a call that finds none under way begins at once, or within a millisecond. fn has
// to use the context that it is given. Once fn has begun, the end of ctx does not end it:
// Append returns how the transaction ended. A failure of fn affects no other call.
func (db *DB) Append(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	if skip := db.forTests.SkipAppends; skip != nil && skip() {
		return nil
	}
	return db.share(ctx, db.appends, change{fn: fn, undone: func() {}})
}

// share runs a change in a transaction that may serve others too.
func (db *DB) share(ctx context.Context, with *together.Calls[change], c change) error {
	err := with.Do(ctx, c)
	if errors.Is(err, errAlone) {
		c.undone()
		return db.runAlone(ctx, c)
	}
	return err
}

// runAlone runs a change in a transaction of its own.
func (db *DB) runAlone(ctx context.Context, c change) error {
	return db.InTx(ctx, func(tx *Tx) error { return c.fn(ctx, tx) })
}

// serve serves some calls, those that do not fail in one transaction.
func (db *DB) serve(calls []*sharing) {
	slices.SortStableFunc(calls, func(a, b *sharing) int { return cmp.Compare(a.Value.order, b.Value.order) })
	for range maxFailed {
		failed, err := db.serveOnce(calls)
		if failed < 0 || len(calls) == 1 {
			endAll(calls, err)
			return
		}
		calls[failed].End(errAlone)
		calls = slices.Delete(calls, failed, failed+1)
	}
	endAll(calls, errAlone)
}

func endAll(calls []*sharing, err error) {
	for _, one := range calls {
		one.End(err)
	}
}

// serveOnce serves some calls in one transaction, as long as one of their callers waits. It
// returns the index of the call because of which the transaction was rolled back, or -1.
func (db *DB) serveOnce(calls []*sharing) (failed int, err error) {
	ctx, stop := together.Context(calls)
	defer stop()
	failed = -1
	err = db.InTx(ctx, func(tx *Tx) error {
		for i, one := range calls {
			failed = i
			if err := runShared(ctx, one, tx); err != nil {
				return err
			}
		}
		failed = -1
		return nil
	})
	return failed, err
}

// runShared calls the function of one call. A panic is a failure here: the caller's own
// goroutine, in which the function then runs again, handles it.
func runShared(ctx context.Context, one *sharing, tx *Tx) (err error) {
	defer func() {
		if recover() != nil {
			err = errAlone
		}
	}()
	return one.Value.fn(&withValues{ctx, one.Ctx}, tx)
}

// withValues is the context of a shared transaction with the values of one caller.
type withValues struct {
	context.Context
	caller context.Context
}

func (w *withValues) Value(key any) any { return w.caller.Value(key) }

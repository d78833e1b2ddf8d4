package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// gatherTime is how long the calls wait that arrive after a transaction that served several:
// others arrive meanwhile, and larger transactions serve all of them sooner. A call without
// others does not wait.
const gatherTime = time.Millisecond

// maxShared is how many calls of Append one transaction serves: it bounds how long each of
// them waits.
const maxShared = 128

// appends are the calls of Append that wait for a transaction.
type appends struct {
	mu      sync.Mutex
	waiting []*appending
	running bool // a goroutine serves those that wait
}

// appending is a call of Append.
type appending struct {
	ctx   context.Context
	fn    func(ctx context.Context, tx *Tx) error
	ended chan error
}

// errAlone makes a call run in a transaction of its own, after the function of another
// call, or its own, has failed.
var errAlone = errors.New("store: the shared transaction was rolled back")

// Append is InTx for a function that only adds rows. Calls that arrive while the database
// commits are committed together afterwards, so that one wait for stable storage serves
// them all; a call that finds none under way begins at once, or within gatherTime. fn has to use the context
// that it is given, which a caller that gives up does not end: fn may run after Append has
// returned because ctx ended. A failure of fn affects no other call.
func (db *DB) Append(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if skip := db.forTests.SkipAppends; skip != nil && skip() {
		return nil
	}
	one := &appending{ctx, fn, make(chan error, 1)}
	if db.appends.add(one) {
		go db.serveAppends()
	}
	select {
	case err := <-one.ended:
		if err == errAlone {
			return db.InTx(ctx, func(tx *Tx) error { return fn(ctx, tx) })
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// add makes a call wait, and reports whether no goroutine serves those that do.
func (a *appends) add(one *appending) (serve bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, one)
	serve, a.running = !a.running, true
	return serve
}

// take removes the calls that the next transaction serves from those that wait. If there
// are none, the goroutine that asked is the last.
func (a *appends) take() (calls []*appending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := min(len(a.waiting), maxShared)
	calls, a.waiting = a.waiting[:n:n], a.waiting[n:]
	a.running = n > 0
	return calls
}

func (db *DB) serveAppends() {
	for calls := db.appends.take(); len(calls) > 0; calls = db.appends.take() {
		err := db.appendAll(calls)
		for _, one := range calls {
			one.ended <- err
		}
		if len(calls) > 1 {
			time.Sleep(gatherTime)
		}
	}
}

// appendAll serves some calls in one transaction, as long as one of their callers waits.
// It fails with errAlone if the transaction was rolled back because of one of them.
func (db *DB) appendAll(calls []*appending) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(calls[0].ctx))
	defer cancel()
	var left atomic.Int64
	for _, one := range calls {
		defer context.AfterFunc(one.ctx, func() {
			if left.Add(1) == int64(len(calls)) {
				cancel()
			}
		})()
	}
	complete := false
	err := db.InTx(ctx, func(tx *Tx) error {
		complete = false
		for _, one := range calls {
			if err := one.add(ctx, tx); err != nil {
				return err
			}
		}
		complete = true
		return nil
	})
	if err != nil && !complete {
		return errAlone
	}
	return err
}

// add calls the function of one. A panic is a failure here: the caller's own goroutine,
// in which the function then runs again, handles it.
func (one *appending) add(ctx context.Context, tx *Tx) (err error) {
	defer func() {
		if recover() != nil {
			err = errAlone
		}
	}()
	return one.fn(&together{ctx, one.ctx}, tx)
}

// together is the context of a shared transaction with the values of one caller.
type together struct {
	context.Context
	caller context.Context
}

func (t *together) Value(key any) any { return t.caller.Value(key) }

package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How many calls one transaction serves: it bounds how long each of them waits, and how long
// the transaction holds its locks.
const (
	maxAppends = 128
	maxCommits = 32
)

// gatherTime is how long the calls wait that arrive after a transaction that served several:
// others arrive meanwhile, and larger transactions serve all of them sooner. A call without
// others does not wait.
const gatherTime = time.Millisecond

// maxFailed is how many calls of a shared transaction may fail before the others are run
// in transactions of their own.
const maxFailed = 3

// shared are calls that wait for a transaction which serves several of them.
type shared struct {
	limit   int // of calls in one transaction
	mu      sync.Mutex
	waiting []*sharing
	running bool // a goroutine serves those that wait
}

// sharing is a call of Append or CommitShared.
type sharing struct {
	ctx   context.Context
	order int64 // the calls of a transaction run in this order
	fn    func(ctx context.Context, tx *Tx) error
	ended chan error
}

// errAlone makes a call run in a transaction of its own, after its function, or those of
// several other calls, have failed.
var errAlone = errors.New("store: the shared transaction was rolled back")

// Append is InTx for a function that only adds rows. Calls that arrive while the database
// commits are committed together afterwards, so that one wait for stable storage serves
// them all; a call that finds none under way begins at once, or within gatherTime. fn has
// to use the context that it is given. Once fn has begun, the end of ctx is not waited for
// any more: Append returns how the transaction ended. A failure of fn affects no other call.
func (db *DB) Append(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	if skip := db.forTests.SkipAppends; skip != nil && skip() {
		return nil
	}
	return db.share(db.appends, &sharing{ctx: ctx, fn: fn})
}

// share runs a call in a transaction that may serve others too.
func (db *DB) share(with *shared, one *sharing) error {
	if err := one.ctx.Err(); err != nil {
		return err
	}
	one.ended = make(chan error, 1)
	if with.add(one) {
		go db.serve(with)
	}
	var err error
	select {
	case err = <-one.ended:
	case <-one.ctx.Done():
		if with.withdraw(one) {
			return one.ctx.Err()
		}
		err = <-one.ended
	}
	if errors.Is(err, errAlone) {
		return db.InTx(one.ctx, func(tx *Tx) error { return one.fn(one.ctx, tx) })
	}
	return err
}

// add makes a call wait, and reports whether no goroutine serves those that do.
func (s *shared) add(one *sharing) (serve bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, one)
	serve, s.running = !s.running, true
	return serve
}

// withdraw removes a call that waits, and reports whether it did.
func (s *shared) withdraw(one *sharing) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiting, one)
	if i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	}
	return i >= 0
}

// take removes the calls that the next transaction serves from those that wait. If there
// are none, the goroutine that asked is the last.
func (s *shared) take() (calls []*sharing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.waiting), s.limit)
	calls = slices.Clone(s.waiting[:n])
	s.waiting = slices.Delete(s.waiting, 0, n)
	s.running = n > 0
	slices.SortStableFunc(calls, func(a, b *sharing) int { return cmp.Compare(a.order, b.order) })
	return calls
}

func (db *DB) serve(s *shared) {
	for calls := s.take(); len(calls) > 0; calls = s.take() {
		db.serveAll(calls)
		if len(calls) > 1 {
			time.Sleep(gatherTime)
		}
	}
}

// serveAll serves some calls, those that do not fail in one transaction.
func (db *DB) serveAll(calls []*sharing) {
	for range maxFailed {
		failed, err := db.serveOnce(calls)
		if failed < 0 || len(calls) == 1 {
			for _, one := range calls {
				one.ended <- err
			}
			return
		}
		calls[failed].ended <- errAlone
		calls = slices.Delete(calls, failed, failed+1)
	}
	for _, one := range calls {
		one.ended <- errAlone
	}
}

// serveOnce serves some calls in one transaction, as long as one of their callers waits. It
// returns the index of the call because of which the transaction was rolled back, or -1.
func (db *DB) serveOnce(calls []*sharing) (failed int, err error) {
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
	failed = -1
	err = db.InTx(ctx, func(tx *Tx) error {
		for i, one := range calls {
			failed = i
			if err := one.run(ctx, tx); err != nil {
				return err
			}
		}
		failed = -1
		return nil
	})
	return failed, err
}

// run calls the function of one. A panic is a failure here: the caller's own goroutine,
// in which the function then runs again, handles it.
func (one *sharing) run(ctx context.Context, tx *Tx) (err error) {
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

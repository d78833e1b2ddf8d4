// Package together serves calls that arrive at about the same time as one, so that they
// share a wait for stable storage.
package together

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// gatherTime is how long the calls wait that arrive after several were served together:
// others arrive meanwhile, and in larger groups all of them are served sooner. A call
// without others does not wait.
const gatherTime = time.Millisecond

// Calls are calls that wait to be served. Its methods may be called from many goroutines.
type Calls[T any] struct {
	limit   int
	serve   func(calls []*Call[T])
	mu      sync.Mutex
	waiting []*Call[T]
	running bool // a goroutine serves those that wait
}

// Call is a call of Do.
type Call[T any] struct {
	Ctx   context.Context
	Value T
	ended chan error
}

// End ends the call: its Do returns err. It must be called exactly once for each call that
// is served.
func (c *Call[T]) End(err error) { c.ended <- err }

// New returns Calls that serve serves, at most limit of them at a time. While it does, others
// wait.
func New[T any](limit int, serve func(calls []*Call[T])) *Calls[T] {
	return &Calls[T]{limit: limit, serve: serve}
}

// Do has a value served with those of other calls, and returns the error with which its call
// was ended. A call that finds none being served is served at once, or within a
// millisecond. If ctx ends before the call is served, it never is; afterwards Do waits.
func (c *Calls[T]) Do(ctx context.Context, value T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	one := &Call[T]{ctx, value, make(chan error, 1)}
	if c.add(one) {
		go c.serveAll()
	}
	select {
	case err := <-one.ended:
		return err
	case <-ctx.Done():
		if c.withdraw(one) {
			return ctx.Err()
		}
		return <-one.ended
	}
}

// Waiting returns how many calls wait.
func (c *Calls[T]) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}

// add makes a call wait, and reports whether no goroutine serves those that do.
func (c *Calls[T]) add(one *Call[T]) (serve bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, one)
	serve, c.running = !c.running, true
	return serve
}

// withdraw removes a call that waits, and reports whether it did.
func (c *Calls[T]) withdraw(one *Call[T]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.waiting, one)
	if i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
	return i >= 0
}

// take removes the calls that are served next from those that wait. If there are none, the
// goroutine that asked is the last.
func (c *Calls[T]) take() (calls []*Call[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.waiting), c.limit)
	calls = slices.Clone(c.waiting[:n])
	c.waiting = slices.Delete(c.waiting, 0, n)
	c.running = n > 0
	return calls
}

func (c *Calls[T]) serveAll() {
	for calls := c.take(); len(calls) > 0; calls = c.take() {
		several := len(calls) > 1
		c.serve(calls)
		if several {
			time.Sleep(gatherTime)
		}
	}
}

// Context returns a context with the values of the first call, which ends when the callers of
// all calls have gone. The caller must call stop.
func Context[T any](calls []*Call[T]) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(calls[0].Ctx))
	var left atomic.Int64
	stops := make([]func() bool, len(calls))
	for i, one := range calls {
		stops[i] = context.AfterFunc(one.Ctx, func() {
			if left.Add(1) == int64(len(calls)) {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}

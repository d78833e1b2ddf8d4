// Package admit decides which work runs now and which waits, fairly by tenant:
// however much one tenant asks for, another one gets its turn.
//
// Queue is the rule itself; admit.go applies it to the requests of callers.
// Start reading at Queue.Enter.
package admit

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// ErrFull is why Enter refuses at once: too many of the tenant wait already.
var ErrFull = errors.New("too many requests of the tenant are waiting")

// Queue admits a bounded number of pieces of work at once. Tenants that wait
// take turns; within a tenant keyroll's own work goes first, and otherwise what
// came first. It is safe for concurrent use.
type Queue struct {
	// Capacity is how much runs at once.
	Capacity int
	// Share is how much of each tenant runs whatever the others do: above
	// Capacity, if they have taken all of it.
	Share int
	// Waiting is how much of each tenant may wait; 0 for any number.
	Waiting int

	mu      sync.Mutex
	busy    int
	tenants map[int64]*tenant
	turns   list.List // of *tenant: those that wait, whose turn is next first
}

// tenant is what one tenant has in a queue; it is forgotten when that is nothing.
type tenant struct {
	id         int64
	busy       int
	own, other list.List // of chan struct{}, closed on admission
}

func (t *tenant) waiting() int { return t.own.Len() + t.other.Len() }

// Enter waits until the tenant's work is admitted or ctx ends, whose error it
// then returns. Work under IsOwn counts as keyroll's own. The caller calls leave
// once the work has ended.
func (q *Queue) Enter(ctx context.Context, id int64) (leave func(), err error) {
	q.mu.Lock()
	t := q.tenants[id]
	if t == nil {
		if q.tenants == nil {
			q.tenants = map[int64]*tenant{}
		}
		t = &tenant{id: id}
		q.tenants[id] = t
	}
	leave = sync.OnceFunc(func() { q.leave(t) })
	if q.busy < q.Capacity || t.busy < q.Share {
		q.admit(t)
		q.mu.Unlock()
		return leave, nil
	}
	if q.Waiting > 0 && t.waiting() >= q.Waiting {
		q.mu.Unlock()
		return nil, ErrFull
	}
	line := &t.other
	if IsOwn(ctx) {
		line = &t.own
	}
	if t.waiting() == 0 {
		q.turns.PushBack(t)
	}
	admitted := make(chan struct{})
	place := line.PushBack(admitted)
	q.mu.Unlock()
	select {
	case <-admitted:
		return leave, nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	select {
	case <-admitted: // at the same moment
		q.mu.Unlock()
		leave()
		return nil, ctx.Err()
	default:
	}
	line.Remove(place)
	if t.waiting() == 0 {
		q.endTurns(t)
	}
	q.forget(t)
	q.mu.Unlock()
	return nil, ctx.Err()
}

// Waits returns how much of a tenant waits.
func (q *Queue) Waits(id int64) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := q.tenants[id]; t != nil {
		return t.waiting()
	}
	return 0
}

func (q *Queue) admit(t *tenant) {
	q.busy++
	t.busy++
}

func (q *Queue) leave(t *tenant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
	t.busy--
	if t.busy < q.Share && t.waiting() > 0 {
		q.next(t)
		if t.waiting() == 0 {
			q.endTurns(t)
		}
	}
	for q.busy < q.Capacity && q.turns.Len() > 0 {
		turn := q.turns.Front()
		t := turn.Value.(*tenant)
		q.next(t)
		if t.waiting() == 0 {
			q.turns.Remove(turn)
		} else {
			q.turns.MoveToBack(turn)
		}
	}
	q.forget(t)
}

// next admits the first of a tenant's work that waits.
func (q *Queue) next(t *tenant) {
	line := &t.own
	if line.Len() == 0 {
		line = &t.other
	}
	q.admit(t)
	close(line.Remove(line.Front()).(chan struct{}))
}

func (q *Queue) endTurns(t *tenant) {
	for turn := q.turns.Front(); turn != nil; turn = turn.Next() {
		if turn.Value == t {
			q.turns.Remove(turn)
			return
		}
	}
}

func (q *Queue) forget(t *tenant) {
	if t.busy == 0 && t.waiting() == 0 {
		delete(q.tenants, t.id)
	}
}

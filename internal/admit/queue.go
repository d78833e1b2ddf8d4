// Package admit decides which work runs now and which waits, fairly among tenants: a
// tenant with many requests does not block the others.
//
// Queue implements the rule; admit.go applies it to the requests of callers.
// Start reading at Queue.Enter.
package admit

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// ErrFull is the error of Enter if too many requests of the tenant wait already.
var ErrFull = errors.New("too many requests of the tenant are waiting")

// Queue bounds how many pieces of work run at once. Waiting tenants take turns; within a
// tenant keyroll's own work goes first, then the oldest. It is safe for concurrent use.
type Queue struct {
	// Capacity is how many pieces of work run at once.
	Capacity int
	// Share is how many pieces of each tenant always run at once: above Capacity, if
	// other tenants use all of it.
	Share int
	// Waiting is how many pieces of each tenant may wait; 0 for any number.
	Waiting int

	mu      sync.Mutex
	busy    int
	tenants map[int64]*tenant
	turns   list.List // of *tenant: those that wait, in the order of their turns
}

// tenant is the work of one tenant in a queue; it is deleted when there is none.
type tenant struct {
	id         int64
	busy       int
	own, other list.List // of chan struct{}, closed on admission
}

func (t *tenant) waiting() int { return t.own.Len() + t.other.Len() }

// Enter waits until the tenant's work is admitted; if ctx ends first, it returns its
// error. Work under IsOwn counts as keyroll's own. The caller must call leave when the
// work has ended.
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

// Waits returns how many pieces of a tenant's work wait.
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
		q.admitNext(t)
		if t.waiting() == 0 {
			q.endTurns(t)
		}
	}
	for q.busy < q.Capacity && q.turns.Len() > 0 {
		turn := q.turns.Front()
		t := turn.Value.(*tenant)
		q.admitNext(t)
		if t.waiting() == 0 {
			q.turns.Remove(turn)
		} else {
			q.turns.MoveToBack(turn)
		}
	}
	q.forget(t)
}

// admitNext admits the first of a tenant's waiting work.
func (q *Queue) admitNext(t *tenant) {
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

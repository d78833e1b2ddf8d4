package admit_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"keyroll/internal/admit"
)

// line is a queue, and the names of the work that it has admitted.
type line struct {
	*testing.T
	*admit.Queue
	admitted []string
	leave    map[string]func()
}

func newLine(t *testing.T, q *admit.Queue) *line {
	return &line{T: t, Queue: q, leave: map[string]func(){}}
}

// enter starts work and waits until it has been admitted or waits.
func (l *line) enter(ctx context.Context, tenant int64, name string) (err chan error) {
	err = make(chan error, 1)
	go func() {
		leave, e := l.Enter(ctx, tenant)
		if e == nil {
			l.admitted = append(l.admitted, name)
			l.leave[name] = leave
		}
		err <- e
	}()
	synctest.Wait()
	return err
}

func (l *line) end(name string) {
	l.leave[name]()
	synctest.Wait()
}

func (l *line) want(names ...string) {
	l.Helper()
	if !slices.Equal(l.admitted, names) {
		l.Fatalf("admitted %v, want %v", l.admitted, names)
	}
}

func TestTenantsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLine(t, &admit.Queue{Capacity: 1}), t.Context()
		for _, name := range []string{"a1", "a2", "a3", "a4"} {
			l.enter(ctx, 1, name)
		}
		l.enter(ctx, 2, "b1")
		l.enter(ctx, 2, "b2")
		l.enter(ctx, 3, "c1")
		l.want("a1")
		for _, name := range []string{"a1", "a2", "b1", "c1", "a3", "b2", "a4"} {
			l.end(name)
		}
		l.want("a1", "a2", "b1", "c1", "a3", "b2", "a4")
		l.enter(ctx, 2, "b3")
		l.want("a1", "a2", "b1", "c1", "a3", "b2", "a4", "b3")
		l.end("b3")
	})
}

func TestOwnWorkRunsFirstWithinItsTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLine(t, &admit.Queue{Capacity: 1}), t.Context()
		l.enter(ctx, 1, "a1")
		l.enter(ctx, 1, "a2")
		l.enter(ctx, 2, "b1")
		l.enter(admit.Own(ctx), 1, "own")
		for _, name := range []string{"a1", "own", "b1", "a2"} {
			l.end(name)
		}
		l.want("a1", "own", "b1", "a2")
	})
}

// A share cannot be used by other tenants, and work that runs by it counts towards the
// capacity.
func TestAShareCannotBeUsedByOtherTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLine(t, &admit.Queue{Capacity: 2, Share: 1}), t.Context()
		l.enter(ctx, 1, "a1")
		l.enter(ctx, 1, "a2")
		l.enter(ctx, 1, "a3")
		l.enter(ctx, 2, "b1")
		l.enter(ctx, 2, "b2")
		l.want("a1", "a2", "b1")
		l.end("b1")
		l.want("a1", "a2", "b1", "b2") // by its share again
		l.end("a1")
		l.want("a1", "a2", "b1", "b2")
		l.end("b2")
		l.want("a1", "a2", "b1", "b2", "a3")
		l.end("a2")
		l.end("a3")
	})
}

func TestCancelledWorkTakesNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLine(t, &admit.Queue{Capacity: 1, Waiting: 2}), t.Context()
		leaving, cancel := context.WithCancel(ctx)
		l.enter(ctx, 1, "a1")
		gaveUp := l.enter(leaving, 2, "b1")
		l.enter(ctx, 2, "b2")
		if err := <-l.enter(ctx, 2, "b3"); !errors.Is(err, admit.ErrFull) {
			t.Errorf("more waits than may: %v", err)
		}
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("gave up: %v", err)
		}
		alone := l.enter(leaving, 3, "c1") // the only one of its tenant
		if err := <-alone; !errors.Is(err, context.Canceled) {
			t.Errorf("gave up: %v", err)
		}
		l.end("a1")
		l.want("a1", "b2")
		l.end("b2")
		l.enter(ctx, 3, "c2")
		l.want("a1", "b2", "c2")
		l.end("c2")
		if n := l.Tenants(); n != 0 {
			t.Errorf("%d tenants are remembered", n)
		}
	})
}

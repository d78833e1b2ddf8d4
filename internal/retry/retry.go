// Package retry repeats background work: when it is woken, after a time, or after
// growing pauses as long as something blocks it.
//
// The work decides which of these applies and records what blocks it; this package only
// waits. Start reading at Loop.
package retry

import (
	"context"
	"time"
)

// Loop says how long the pauses of blocked work are, and what ends a pause early.
type Loop struct {
	First, Longest time.Duration   // a pause is twice as long as the one before
	Wake           <-chan struct{} // nil: nothing ends a pause early
}

// Next says when the work is to be done again.
type Next struct {
	when  when
	after time.Duration
}

type when int

const (
	never when = iota
	woken
	later
	unblocked
)

// Done ends the loop.
func Done() Next { return Next{when: never} }

// Idle waits until the loop is woken.
func Idle() Next { return Next{when: woken} }

// After waits for a time.
func After(d time.Duration) Next { return Next{when: later, after: d} }

// Blocked waits for a time that grows while work remains blocked, but at least for d.
func Blocked(d time.Duration) Next { return Next{when: unblocked, after: d} }

// Run repeats work until it is done or ctx is.
func (l Loop) Run(ctx context.Context, work func(ctx context.Context) Next) {
	for pause := l.First; ; {
		next := work(ctx)
		if next.when == never {
			return
		}
		if next.when != unblocked {
			pause = l.First
		}
		var end <-chan time.Time
		switch next.when {
		case later:
			end = time.After(next.after)
		case unblocked:
			end = time.After(max(pause, next.after))
			pause = min(2*pause, l.Longest)
		}
		select {
		case <-ctx.Done():
			return
		case <-l.Wake:
		case <-end:
		}
	}
}

// Package fault names the points at which the crash harness may stop the
// process. In production no hook is set and a point costs one atomic load.
package fault

import "sync/atomic"

var hook atomic.Pointer[func(name string)]

// Point marks a named point between two durable steps.
func Point(name string) {
	if h := hook.Load(); h != nil {
		(*h)(name)
	}
}

// Set installs f to be called at each point; nil removes it.
func Set(f func(name string)) {
	if f == nil {
		hook.Store(nil)
		return
	}
	hook.Store(&f)
}

// Package keycache keeps opened keys for a bounded time, only in memory.
//
// A key is returned only if the roots that opened it were used within the revocation
// bound: the owner of the cache renews each entry before that, and removes it when it was
// revoked. Every key is zeroed when it leaves the cache. Times are measured by two clocks,
// so that neither a sleep of the machine nor setting its clock prolongs a lifetime. Start
// reading at Get and arm.
package keycache

import (
	"context"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
)

// Cache keeps opened keys. A key that was opened for one purpose of the service only is in
// a map of its own, which no user's request reads.
type Cache struct {
	bounds Bounds
	wall   func() time.Time
	due    func(context.Context, *Entry)
	mu     sync.Mutex
	keys   map[api.Initiator]map[int64]*Entry
	drops  int64 // calls of Drop
	// working is the context of the work of timers, nil before the first timer.
	working context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
}

// Bounds are the times of a cache.
type Bounds struct {
	// Revocation is how long a key may be returned after its roots were last used.
	Revocation time.Duration
	// Renew is when the roots of an entry are to be used again: the rest of Revocation
	// is for the calls of the vaults.
	Renew time.Duration
	// Alert is how long before the end of a lifetime a failing renewal is alerted, if
	// the lifetime is longer than that.
	Alert time.Duration
}

// New returns a cache whose wall clock is wall. due is called when an entry is to be
// renewed or its lifetime is over; afterwards it calls Release or Rearm.
func New(b Bounds, wall func() time.Time, due func(context.Context, *Entry)) *Cache {
	return &Cache{bounds: b, wall: wall, due: due,
		keys: map[api.Initiator]map[int64]*Entry{api.ByUser: {}, api.BySystem: {}, api.ForRecovery: {}}}
}

// Opened describes an opened key.
type Opened struct {
	ID, Tenant int64
	Kind       api.PolicyKind
	// Lifetime is how long the key is kept without a renewal; 0 is for ever.
	Lifetime time.Duration
	// For is who may use the key. A key for users is for every initiator, and renewed.
	For api.Initiator
}

// Entry is an opened key in the cache.
type Entry struct {
	Opened
	key     *envelope.Key // this and the fields below are changed only under the cache's lock
	renewed Moment        // when the unwrap began that its lifetime counts from
	asked   Moment        // when the vaults were last called, whatever the result
	used    Moment
	alerted bool
	timer   *time.Timer
}

// Moment is a point in time by two clocks: the wall clock, which runs while the
// machine sleeps and may be set, and the monotonic clock, which does neither.
type Moment struct{ wall, mono time.Time }

// Now returns the present moment.
func (c *Cache) Now() Moment { return Moment{c.wall().Round(0), time.Now()} }

// since is the longer time that has passed by either clock, so that setting the wall
// clock back does not prolong a key's lifetime and the time of a sleep counts.
func (c *Cache) since(m Moment) time.Duration {
	return max(c.wall().Round(0).Sub(m.wall), time.Since(m.mono))
}

// lifetime is how long an entry lives after its last unwrap; 0 is for ever.
func (c *Cache) lifetime(e *Entry) time.Duration {
	if e.For != api.ByUser {
		return min(e.Lifetime, c.bounds.Revocation)
	}
	return e.Lifetime
}

// remaining returns the rest of an entry's lifetime.
func (c *Cache) remaining(e *Entry) time.Duration { return c.lifetime(e) - c.since(e.renewed) }

// Get returns a copy of a key that who may use, nil if it must be opened.
func (c *Cache) Get(id, tenant int64, who api.Initiator) *envelope.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, whose := range [...]api.Initiator{api.ByUser, who} {
		e := c.live(whose, id, tenant)
		if e == nil || c.lifetime(e) > 0 && c.since(e.asked) >= c.bounds.Revocation {
			continue
		}
		e.used = c.Now()
		return e.key.Clone()
	}
	return nil
}

// live returns an entry whose lifetime has not ended; c.mu is held.
func (c *Cache) live(who api.Initiator, id, tenant int64) *Entry {
	e := c.keys[who][id]
	if e == nil || e.Tenant != tenant {
		return nil
	}
	if c.lifetime(e) > 0 && c.remaining(e) <= 0 {
		c.remove(e)
		return nil
	}
	return e
}

// Overdue returns a live entry whose customer keys have not been asked within
// the revocation bound, as after a sleep of the machine.
func (c *Cache) Overdue(id, tenant int64) *Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.live(api.ByUser, id, tenant); e != nil && c.lifetime(e) > 0 && c.since(e.asked) >= c.bounds.Revocation {
		return e
	}
	return nil
}

// DropCount returns the count that Put compares: a key that is opened afterwards is
// kept only if nothing was dropped meanwhile.
func (c *Cache) DropCount() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drops
}

// Put adds a key whose unwrap began at the moment at. since is the DropCount from
// before the unwrap.
func (c *Cache) Put(o Opened, key *envelope.Key, since int64, at Moment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drops != since {
		return // the dropped key may be this one
	}
	e := &Entry{Opened: o, key: key.Clone(), renewed: at, asked: at, used: c.Now()}
	if old := c.keys[e.For][e.ID]; old != nil {
		c.remove(old)
	}
	c.keys[e.For][e.ID] = e
	c.arm(e)
}

// arm sets an entry's timer to the earliest of its renewal, the end of its lifetime,
// and the end of a lifetime without use. c.mu is held.
func (c *Cache) arm(e *Entry) {
	if c.lifetime(e) == 0 {
		return
	}
	after := min(c.remaining(e), c.lifetime(e)-c.since(e.used))
	if e.For == api.ByUser {
		after = min(after, c.bounds.Renew-c.since(e.asked))
	}
	if c.working == nil {
		c.working, c.stop = context.WithCancel(context.Background())
	}
	ctx := c.working
	e.timer = time.AfterFunc(max(after, 0), func() {
		c.mu.Lock()
		if ctx.Err() != nil || c.keys[e.For][e.ID] != e {
			c.mu.Unlock()
			return
		}
		c.running.Add(1)
		c.mu.Unlock()
		defer c.running.Done()
		c.due(ctx, e)
	})
}

// Rearm sets the timer of an entry again after it has fired, if the entry is still
// in the cache.
func (c *Cache) Rearm(e *Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys[e.For][e.ID] == e {
		e.timer.Stop()
		c.arm(e)
	}
}

// Expired reports whether an entry's lifetime is over or it was not used for that
// long.
func (c *Cache) Expired(e *Entry) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.remaining(e) <= 0 || c.since(e.used) >= c.lifetime(e)
}

// Drop removes a key for every initiator, and keeps an unwrap that is under
// way from adding it.
func (c *Cache) Drop(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	for _, keys := range c.keys {
		if e := keys[id]; e != nil {
			c.remove(e)
		}
	}
}

// Release removes one entry, if it is still in the cache.
func (c *Cache) Release(e *Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(e)
}

// remove zeroes an entry; c.mu is held.
func (c *Cache) remove(e *Entry) {
	if c.keys[e.For][e.ID] != e {
		return
	}
	if e.timer != nil {
		e.timer.Stop()
	}
	e.key.Zero()
	delete(c.keys[e.For], e.ID)
}

// Close removes every key and waits for the renewals under way to end. Keys that are
// opened later are cached again.
func (c *Cache) Close() {
	c.mu.Lock()
	for _, keys := range c.keys {
		for _, e := range keys {
			c.remove(e)
		}
	}
	if c.stop != nil {
		c.stop()
		c.working, c.stop = nil, nil
	}
	c.mu.Unlock()
	c.running.Wait()
}

// Extend renews the lifetime of an entry; key must be the entry's key.
func (c *Cache) Extend(e *Entry, key *envelope.Key, at Moment) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys[api.ByUser][e.ID] != e {
		return fail.New(api.NotFound, "policy key %d was dropped from the cache meanwhile", e.ID)
	}
	if !e.key.Equal(key) {
		return fail.New(api.Damaged, "the roots of policy key %d decrypt to another key than before", e.ID)
	}
	e.renewed, e.asked, e.alerted = at, at, false
	return nil
}

// RecordFailure records that an entry could not be renewed. It returns the rest of its
// lifetime, and whether to alert, which is true once for an entry.
func (c *Cache) RecordFailure(e *Entry, at Moment) (left time.Duration, alert bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys[api.ByUser][e.ID] != e {
		return 0, false
	}
	e.asked = at
	left = c.remaining(e)
	alert = !e.alerted && c.lifetime(e) > c.bounds.Alert && left < c.bounds.Alert
	e.alerted = e.alerted || alert
	return left, alert
}

// PeekForTests returns the cache's own copy of a key for users, nil if it has none, so
// that tests see when it is zeroed.
func (c *Cache) PeekForTests(id int64) *envelope.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.keys[api.ByUser][id]; e != nil {
		return e.key
	}
	return nil
}

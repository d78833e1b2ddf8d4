package policy

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"keyroll/internal/envelope"
)

// cache keeps opened policy keys for a bounded time, only in memory. A key that the
// availability key opened for the service's own work, or for a recovery, is in a map
// of its own, which no user's request reads.
type cache struct {
	wall  func() time.Time
	due   func(context.Context, *cached) // called when an entry's timer fires
	mu    sync.Mutex
	keys  map[Initiator]map[int64]*cached
	drops int64 // calls of drop
	// flights lets concurrent callers of one kind that need the same key share one
	// unwrap.
	flights  singleflight.Group
	renewals singleflight.Group
	// working is the context of the work of timers, nil before the first timer.
	working context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
}

// cached is an opened policy key. Its fields are changed only under the cache's lock.
type cached struct {
	id, tenant int64
	profile    Profile
	whose      Initiator // User: for every initiator, and renewed
	key        *envelope.Key
	renewed    moment // when the unwrap began that its lifetime counts from
	asked      moment // when the vaults were last called, whatever the result
	used       moment
	alerted    bool
	timer      *time.Timer
}

// moment is a point in time by two clocks: the wall clock, which runs while the
// machine sleeps and may be set, and the monotonic clock, which does neither.
type moment struct{ wall, mono time.Time }

func (c *cache) now() moment { return moment{c.wall().Round(0), time.Now()} }

// since is the longer time that has passed by either clock, so that setting the wall
// clock back does not prolong a key's lifetime and the time of a sleep counts.
func (c *cache) since(m moment) time.Duration {
	return max(c.wall().Round(0).Sub(m.wall), time.Since(m.mono))
}

// lifetime is how long an entry lives after its last unwrap; 0 is for ever.
func (e *cached) lifetime() time.Duration {
	if e.whose != User {
		return min(e.profile.CacheLifetime, RevocationBound)
	}
	return e.profile.CacheLifetime
}

// remaining returns the rest of an entry's lifetime.
func (c *cache) remaining(e *cached) time.Duration { return e.lifetime() - c.since(e.renewed) }

// get returns a copy of a key that who may use, nil if it must be opened.
func (c *cache) get(id, tenant int64, who Initiator) *envelope.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, whose := range [...]Initiator{User, who} {
		e := c.live(whose, id, tenant)
		if e == nil || e.lifetime() > 0 && c.since(e.asked) >= RevocationBound {
			continue
		}
		e.used = c.now()
		return e.key.Clone()
	}
	return nil
}

// live returns an entry whose lifetime has not ended; c.mu is held.
func (c *cache) live(who Initiator, id, tenant int64) *cached {
	e := c.keys[who][id]
	if e == nil || e.tenant != tenant {
		return nil
	}
	if e.lifetime() > 0 && c.remaining(e) <= 0 {
		c.remove(e)
		return nil
	}
	return e
}

// overdue returns a live entry whose customer keys have not been asked within
// RevocationBound, as after a sleep of the machine.
func (c *cache) overdue(id, tenant int64) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.live(User, id, tenant); e != nil && e.lifetime() > 0 && c.since(e.asked) >= RevocationBound {
		return e
	}
	return nil
}

// dropCount returns the count that put compares: a key that is opened afterwards is
// kept only if nothing was dropped meanwhile.
func (c *cache) dropCount() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drops
}

// put adds a key whose unwrap began at the moment at. since is the dropCount from
// before the unwrap.
func (c *cache) put(id, tenant int64, key *envelope.Key, since int64, at moment, profile Profile, whose Initiator) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drops != since {
		return // the dropped key may be this one
	}
	e := &cached{id: id, tenant: tenant, profile: profile, whose: whose, key: key.Clone(), renewed: at, asked: at, used: c.now()}
	if old := c.keys[e.whose][id]; old != nil {
		c.remove(old)
	}
	c.keys[e.whose][id] = e
	c.arm(e)
}

// arm sets an entry's timer to the earliest of its renewal, the end of its lifetime,
// and the end of a lifetime without use. c.mu is held.
func (c *cache) arm(e *cached) {
	if e.lifetime() == 0 {
		return
	}
	after := min(c.remaining(e), e.lifetime()-c.since(e.used))
	if e.whose == User {
		after = min(after, renewAfter-c.since(e.asked))
	}
	if c.working == nil {
		c.working, c.stop = context.WithCancel(context.Background())
	}
	ctx := c.working
	e.timer = time.AfterFunc(max(after, 0), func() {
		c.mu.Lock()
		if ctx.Err() != nil || c.keys[e.whose][e.id] != e {
			c.mu.Unlock()
			return
		}
		c.running.Add(1)
		c.mu.Unlock()
		defer c.running.Done()
		c.due(ctx, e)
	})
}

// rearm sets the timer of an entry again after it has fired, if the entry is still
// in the cache.
func (c *cache) rearm(e *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys[e.whose][e.id] == e {
		e.timer.Stop()
		c.arm(e)
	}
}

// expired reports whether an entry's lifetime is over or it was not used for that
// long.
func (c *cache) expired(e *cached) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.remaining(e) <= 0 || c.since(e.used) >= e.lifetime()
}

// drop removes a policy key for every initiator, and keeps an unwrap that is under
// way from adding it.
func (c *cache) drop(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	for _, keys := range c.keys {
		if e := keys[id]; e != nil {
			c.remove(e)
		}
	}
}

// release removes one entry, if it is still in the cache.
func (c *cache) release(e *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(e)
}

// remove zeroes an entry; c.mu is held.
func (c *cache) remove(e *cached) {
	if c.keys[e.whose][e.id] != e {
		return
	}
	if e.timer != nil {
		e.timer.Stop()
	}
	e.key.Zero()
	delete(c.keys[e.whose], e.id)
}

// close removes every key and waits for the renewals under way to end. Keys that are
// opened later are cached again.
func (c *cache) close() {
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

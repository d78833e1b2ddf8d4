package policy

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"keyroll/internal/envelope"
)

// cache keeps opened policy keys for a bounded time, in memory alone. A key
// that the availability key opened for the service's own work, or for a
// recovery, is in a map of its own: no user's request looks there.
type cache struct {
	wall  func() time.Time
	due   func(context.Context, *cached) // what is to be done when an entry's timer ends
	mu    sync.Mutex
	keys  map[Initiator]map[int64]*cached
	drops int64 // calls of drop
	// flights hold one unwrap for all callers of one kind who want the same key at once.
	flights  singleflight.Group
	renewals singleflight.Group
	// working is the life of the timers' work, nil while there is none.
	working context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
}

// cached is an opened policy key. What changes is under the cache's lock.
type cached struct {
	id, tenant int64
	profile    Profile
	whose      Initiator // User: everybody's, and renewed
	key        *envelope.Key
	renewed    moment // when the unwrap began that its lifetime counts from
	asked      moment // when the customer keys were last asked, whatever they said
	used       moment
	alerted    bool
	timer      *time.Timer
}

// moment is a point in time by two clocks: the wall's, which goes on while the
// machine sleeps and may be set, and the monotonic one, which does neither.
type moment struct{ wall, mono time.Time }

func (c *cache) now() moment { return moment{c.wall().Round(0), time.Now()} }

// since is the longer time that has passed by either clock: a wall clock set
// back lengthens no key's life, and a machine that slept has slept.
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

// left is what remains of an entry's lifetime.
func (c *cache) left(e *cached) time.Duration { return e.lifetime() - c.since(e.renewed) }

// get returns a copy of a key that who may have, nil if it must be asked for.
func (c *cache) get(id, tenant int64, who Initiator) *envelope.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range [...]Initiator{User, who} {
		e := c.at(at, id, tenant)
		if e == nil || e.lifetime() > 0 && c.since(e.asked) >= RevocationBound {
			continue
		}
		e.used = c.now()
		return e.key.Clone()
	}
	return nil
}

// at returns an entry whose lifetime has not ended; c.mu is held.
func (c *cache) at(who Initiator, id, tenant int64) *cached {
	e := c.keys[who][id]
	if e == nil || e.tenant != tenant {
		return nil
	}
	if e.lifetime() > 0 && c.left(e) <= 0 {
		c.remove(e)
		return nil
	}
	return e
}

// overdue returns an entry that lives but whose customer keys have not been
// asked within RevocationBound, as after a sleep of the machine.
func (c *cache) overdue(id, tenant int64) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.at(User, id, tenant); e != nil && e.lifetime() > 0 && c.since(e.asked) >= RevocationBound {
		return e
	}
	return nil
}

// mark returns what put compares: what is opened after it is put in only if
// nothing was dropped meanwhile.
func (c *cache) mark() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drops
}

// put keeps a key whose unwrap began at a moment.
func (c *cache) put(id, tenant int64, key *envelope.Key, since int64, at moment, profile Profile, whose Initiator) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drops != since {
		return // it may be this key that is not to be kept any more
	}
	e := &cached{id: id, tenant: tenant, profile: profile, whose: whose, key: key.Clone(), renewed: at, asked: at, used: c.now()}
	if old := c.keys[e.whose][id]; old != nil {
		c.remove(old)
	}
	c.keys[e.whose][id] = e
	c.arm(e)
}

// arm sets an entry's timer to what comes first: its renewal, the end of its
// lifetime, or a lifetime without a use. c.mu is held.
func (c *cache) arm(e *cached) {
	if e.lifetime() == 0 {
		return
	}
	after := min(c.left(e), e.lifetime()-c.since(e.used))
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

// again arms an entry that is still kept and whose timer has ended.
func (c *cache) again(e *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys[e.whose][e.id] == e {
		e.timer.Stop()
		c.arm(e)
	}
}

// spent reports whether an entry has outlived its lifetime or its use.
func (c *cache) spent(e *cached) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left(e) <= 0 || c.since(e.used) >= e.lifetime()
}

// drop forgets a policy key for everybody, also what is being opened.
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

// release lets go of one entry, if it is still kept.
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

// close forgets every key and waits for the renewals under way to end. What is
// opened later is kept anew.
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

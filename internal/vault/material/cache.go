package material

import (
	"container/list"
	"crypto/rsa"
	"sync"
	"time"
)

const (
	cacheSize     = 256
	cacheLifetime = 10 * time.Minute
)

// Cache holds the private keys that were used last, parsed. It only saves decrypting
// them: whether a version may be used is read from the database at each use.
type Cache struct {
	mu    sync.Mutex
	order *list.List // of *cached, the last used first
	byID  map[int64]*list.Element
}

type cached struct {
	id    int64
	key   *rsa.PrivateKey
	until time.Time
}

// NewCache returns an empty cache.
func NewCache() *Cache { return &Cache{order: list.New(), byID: map[int64]*list.Element{}} }

// Get returns the key of a version, nil if it is not in the cache.
func (c *Cache) Get(id int64, now time.Time) *rsa.PrivateKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byID[id]
	if e == nil {
		return nil
	}
	entry := e.Value.(*cached)
	if !now.Before(entry.until) {
		c.remove(e)
		return nil
	}
	c.order.MoveToFront(e)
	return entry.key
}

// Put adds the key of a version.
func (c *Cache) Put(id int64, key *rsa.PrivateKey, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byID[id]; e != nil {
		c.remove(e)
	}
	c.byID[id] = c.order.PushFront(&cached{id, key, now.Add(cacheLifetime)})
	if c.order.Len() > cacheSize {
		c.remove(c.order.Back())
	}
}

// Drop removes the keys of some versions.
func (c *Cache) Drop(ids ...int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if e := c.byID[id]; e != nil {
			c.remove(e)
		}
	}
}

// Len counts the keys that are in the cache.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byID)
}

func (c *Cache) remove(e *list.Element) {
	delete(c.byID, e.Value.(*cached).id)
	c.order.Remove(e)
}

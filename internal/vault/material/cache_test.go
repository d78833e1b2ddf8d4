package material

import (
	"crypto/rsa"
	"testing"
	"time"
)

func TestCacheIsBoundedInNumberAndTime(t *testing.T) {
	now := time.Unix(0, 0)
	c := NewCache()
	for id := range int64(cacheSize + 10) {
		c.Put(id, &rsa.PrivateKey{}, now)
		c.Get(0, now)
	}
	if c.order.Len() != cacheSize || len(c.byID) != cacheSize {
		t.Errorf("%d and %d entries", c.order.Len(), len(c.byID))
	}
	if c.Get(0, now) == nil || c.Get(1, now) != nil {
		t.Error("the one used all the time is gone, or the one never used is there")
	}
	if c.Drop(0); c.Get(0, now) != nil {
		t.Error("dropped and still there")
	}
	last := int64(cacheSize + 9)
	if c.Get(last, now.Add(cacheLifetime-1)) == nil || c.Get(last, now.Add(cacheLifetime)) != nil {
		t.Error("the lifetime is not kept")
	}
}

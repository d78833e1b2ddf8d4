package store_test

import (
	"sync"
	"testing"
	"testing/synctest"

	"keyroll/internal/store"
)

func TestIDsAreUniqueAndGrowInEachGoroutine(t *testing.T) {
	const workers, each = 8, 20000
	made := make([][]int64, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for range each {
				made[w] = append(made[w], store.NewID())
			}
		})
	}
	all.Wait()
	known := make(map[int64]bool)
	for _, ids := range made {
		last := int64(0)
		for _, id := range ids {
			if id <= last || known[id] {
				t.Fatalf("id %d after %d, known %v", id, last, known[id])
			}
			last, known[id] = id, true
		}
	}
}

func TestIDsGrowWhenTheClockIsSetBack(t *testing.T) {
	before := store.NewID()
	synctest.Test(t, func(t *testing.T) { // its clock is in the year 2000
		if id := store.NewID(); id <= before {
			t.Errorf("id %d after %d", id, before)
		}
	})
}

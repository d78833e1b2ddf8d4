package content

import "sync"

// activeReads counts the reads under way of each item, so that the blobs of a replaced
// file are not collected while this process still reads it. It does not know the
// reads of other processes.
type activeReads struct {
	mu      sync.Mutex
	readers map[int64]int // by item
}

// begin registers a read of an item.
func (h *activeReads) begin(item int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers == nil {
		h.readers = make(map[int64]int)
	}
	h.readers[item]++
}

// end undoes one begin.
func (h *activeReads) end(item int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers[item]--; h.readers[item] == 0 {
		delete(h.readers, item)
	}
}

// underWay reports whether an item is being read.
func (h *activeReads) underWay(item int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.readers[item] > 0
}

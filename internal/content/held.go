package content

import "sync"

// holds keeps the blobs of a file that was replaced from being collected until
// those who read it have come to its end. It reaches as far as this process.
type holds struct {
	mu      sync.Mutex
	readers map[int64]int // by item
}

// hold says that an item is being read.
func (h *holds) hold(item int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers == nil {
		h.readers = make(map[int64]int)
	}
	h.readers[item]++
}

// release undoes one hold.
func (h *holds) release(item int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers[item]--; h.readers[item] == 0 {
		delete(h.readers, item)
	}
}

// held reports whether an item is being read.
func (h *holds) held(item int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.readers[item] > 0
}

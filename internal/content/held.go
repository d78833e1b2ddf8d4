package content

import "sync"

// holds keeps the blobs of a file that was replaced until those who read it have
// come to its end. It reaches as far as this process.
type holds struct {
	mu      sync.Mutex
	readers map[int64]int       // by item
	retired map[int64][]blobRow // of items that were replaced and still have readers
}

// hold says that an item is being read.
func (h *holds) hold(item int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers == nil {
		h.readers, h.retired = make(map[int64]int), make(map[int64][]blobRow)
	}
	h.readers[item]++
}

// release undoes one hold and returns the blobs that may go now.
func (h *holds) release(item int64) []blobRow {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers[item]--; h.readers[item] > 0 {
		return nil
	}
	blobs := h.retired[item]
	delete(h.readers, item)
	delete(h.retired, item)
	return blobs
}

// reading reports whether an item is being read.
func (h *holds) reading(item int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.readers[item] > 0
}

// retire says that the rows of an item with these blobs are gone, and reports
// whether the blobs may go now; else the last release returns them.
func (h *holds) retire(blobs []blobRow) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	item := blobs[0].Item
	if h.readers[item] == 0 {
		return true
	}
	h.retired[item] = blobs
	return false
}

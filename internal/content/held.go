package content

import (
	"maps"
	"slices"
	"sync"
)

// holds keeps the blobs of a file that was replaced until those who read it have
// come to its end. It reaches as far as this process.
type holds struct {
	mu      sync.Mutex
	readers map[int64]int               // by item
	kept    map[int64]map[int64]blobRow // by item and id: blobs that are to go and still have readers
}

// hold says that an item is being read.
func (h *holds) hold(item int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers == nil {
		h.readers, h.kept = make(map[int64]int), make(map[int64]map[int64]blobRow)
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
	blobs := slices.Collect(maps.Values(h.kept[item]))
	delete(h.readers, item)
	delete(h.kept, item)
	return blobs
}

// keep reports whether a blob that is to go has readers: then the last release
// returns it.
func (h *holds) keep(b blobRow) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers[b.Item] == 0 {
		return false
	}
	if h.kept[b.Item] == nil {
		h.kept[b.Item] = make(map[int64]blobRow)
	}
	h.kept[b.Item][b.ID] = b
	return true
}

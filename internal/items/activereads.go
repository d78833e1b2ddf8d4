package items

import "sync"

// activeReads counts the reads under way of each item, so that the blobs of a replaced
// file are not collected while this process still reads it. It does not know the
// reads of other processes.
type activeReads struct {
	mu      sync.Mutex
	readers map[int64]int // by item
	asked   int64         // calls of underWay
}

// begin registers a read of an item.
func (r *activeReads) begin(item int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readers == nil {
		r.readers = make(map[int64]int)
	}
	r.readers[item]++
}

// end undoes one begin.
func (r *activeReads) end(item int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readers[item]--; r.readers[item] == 0 {
		delete(r.readers, item)
	}
}

// underWay reports whether an item is being read.
func (r *activeReads) underWay(item int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return r.readers[item] > 0
}

// BeginRead registers a read of an item.
func (s *Store) BeginRead(item int64) { s.reads.begin(item) }

// ReadChecks returns how often BeingRead has been called. If the number is still the same
// after BeginRead, no collection has missed that the item is being read.
func (s *Store) ReadChecks() int64 {
	s.reads.mu.Lock()
	defer s.reads.mu.Unlock()
	return s.reads.asked
}

// EndRead undoes one BeginRead.
func (s *Store) EndRead(item int64) { s.reads.end(item) }

// BeingRead reports whether this process is reading an item.
func (s *Store) BeingRead(item int64) bool { return s.reads.underWay(item) }

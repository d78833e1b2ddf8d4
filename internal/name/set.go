package name

import (
	"encoding/binary"
	"slices"
)

// Set tells which of many hashes of names are shared by several: of each it keeps
// 8 bytes. All are added, then it is closed, then it is asked.
type Set struct{ all []uint64 }

// Add adds a hash of at least 8 bytes, once for each name.
func (s *Set) Add(hash []byte) { s.all = append(s.all, binary.BigEndian.Uint64(hash)) }

// Close keeps those that were added more than once.
func (s *Set) Close() {
	slices.Sort(s.all)
	shared := s.all[:0]
	for i := 1; i < len(s.all); i++ {
		if s.all[i] == s.all[i-1] {
			shared = append(shared, s.all[i])
		}
	}
	s.all = slices.Clip(slices.Compact(shared))
}

// Shared says whether a hash was added more than once.
func (s *Set) Shared(hash []byte) bool {
	_, found := slices.BinarySearch(s.all, binary.BigEndian.Uint64(hash))
	return found
}

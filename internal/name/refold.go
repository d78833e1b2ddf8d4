package name

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Hashed is an object that is found by a hash of its name: by Now before Refold, and by
// Folded, the hash of the name's folded form, after it.
type Hashed struct {
	ID          int64
	Now, Folded []byte
}

// Refold calls update for every object that each visits and whose folded hash no other
// object has; an object that would share its hash with another one is not changed. each
// must visit all objects, in parts, and is called twice; 8 bytes of each hash are kept in
// memory. Refold may be interrupted and run again at any point, even if some objects
// have been updated.
func Refold(each func(visit func(part []Hashed) error) error, update func(part []Hashed) error) error {
	var all duplicates
	err := each(func(part []Hashed) error {
		for _, h := range part {
			all.add(h.Folded)
		}
		return nil
	})
	if err != nil {
		return err
	}
	all.close()
	return each(func(part []Hashed) error {
		part = slices.DeleteFunc(part, func(h Hashed) bool { return bytes.Equal(h.Now, h.Folded) || all.has(h.Folded) })
		if len(part) == 0 {
			return nil
		}
		return update(part)
	})
}

// duplicates finds the hashes that were added more than once. First all are added, then
// close is called, then has.
type duplicates struct{ all []uint64 }

func (s *duplicates) add(hash []byte) { s.all = append(s.all, binary.BigEndian.Uint64(hash)) }

func (s *duplicates) close() {
	slices.Sort(s.all)
	twice := s.all[:0]
	for i := 1; i < len(s.all); i++ {
		if s.all[i] == s.all[i-1] {
			twice = append(twice, s.all[i])
		}
	}
	s.all = slices.Clip(slices.Compact(twice))
}

func (s *duplicates) has(hash []byte) bool {
	_, found := slices.BinarySearch(s.all, binary.BigEndian.Uint64(hash))
	return found
}

package name

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Hashed is something that is found by the hash of its name: by Now, and once it
// is refolded by Folded, that of the name's folded form.
type Hashed struct {
	ID          int64
	Now, Folded []byte
}

// Refold has update make everything that each visits be found by its folded name,
// but what would then have one hash with something else: that stays as it is. each
// visits all of it, in parts, and is called twice; 8 bytes of each hash are kept
// meanwhile. It may be broken off and run again at any point, also where some has
// been updated.
func Refold(each func(visit func(part []Hashed) error) error, update func(part []Hashed) error) error {
	var all shared
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

// shared tells which of many hashes were added more than once. All are added, then
// it is closed, then it is asked.
type shared struct{ all []uint64 }

func (s *shared) add(hash []byte) { s.all = append(s.all, binary.BigEndian.Uint64(hash)) }

func (s *shared) close() {
	slices.Sort(s.all)
	twice := s.all[:0]
	for i := 1; i < len(s.all); i++ {
		if s.all[i] == s.all[i-1] {
			twice = append(twice, s.all[i])
		}
	}
	s.all = slices.Clip(slices.Compact(twice))
}

func (s *shared) has(hash []byte) bool {
	_, found := slices.BinarySearch(s.all, binary.BigEndian.Uint64(hash))
	return found
}

package envelope

import (
	"cmp"
	"fmt"
	"slices"
)

// MaxSlots is the largest number of keys in a page.
const MaxSlots = 1024

// Slot is one child's key in a page.
type Slot struct {
	Child      int64  // id of the child, positive
	Generation uint32 // of the child's key
	Key        Key
}

func (s Slot) compare(child int64, generation uint32) int {
	return cmp.Or(cmp.Compare(s.Child, child), cmp.Compare(s.Generation, generation))
}

// Page is the decrypted form of a key page: slots in order of child and generation,
// each pair once. Its methods copy the keys that they take and return. A page in
// memory may have more than MaxSlots keys until it is split. It must not be used by
// several goroutines at once.
type Page struct {
	slots []Slot
}

// NewPage returns a page with copies of slots, which may be in any order.
func NewPage(slots ...Slot) (*Page, error) {
	p := &Page{slots: make([]Slot, 0, len(slots))}
	for _, s := range slots {
		if err := s.check(); err != nil {
			p.Zero()
			return nil, fmt.Errorf("make key page: %w", err)
		}
		p.slots = append(p.slots, s.clone())
	}
	slices.SortFunc(p.slots, func(a, b Slot) int { return a.compare(b.Child, b.Generation) })
	for i := 1; i < len(p.slots); i++ {
		if a, b := p.slots[i-1], p.slots[i]; a.compare(b.Child, b.Generation) == 0 {
			p.Zero()
			return nil, fmt.Errorf("make key page: child %d generation %d is in it twice", b.Child, b.Generation)
		}
	}
	return p, nil
}

func (s Slot) check() error {
	switch {
	case s.Child <= 0:
		return fmt.Errorf("child %d is not an id", s.Child)
	case s.Key.isZero():
		return fmt.Errorf("child %d generation %d: %w", s.Child, s.Generation, errZeroed)
	}
	return nil
}

func (s Slot) clone() Slot {
	s.Key = *s.Key.Clone()
	return s
}

// Len returns the number of slots.
func (p *Page) Len() int { return len(p.slots) }

// Slots returns copies of all slots in order. The caller zeroes their keys.
func (p *Page) Slots() []Slot { return cloneSlots(p.slots) }

func cloneSlots(slots []Slot) []Slot {
	keys := make([][KeySize]byte, len(slots))
	out := make([]Slot, len(slots))
	for i, s := range slots {
		keys[i] = **s.Key.at
		out[i] = Slot{Child: s.Child, Generation: s.Generation, Key: keyAt(&keys[i])}
	}
	return out
}

// Find returns a copy of the key of a child's generation.
func (p *Page) Find(child int64, generation uint32) (*Key, bool) {
	i, ok := p.search(child, generation)
	if !ok {
		return nil, false
	}
	return p.slots[i].Key.Clone(), true
}

func (p *Page) search(child int64, generation uint32) (int, bool) {
	return slices.BinarySearchFunc(p.slots, Slot{Child: child, Generation: generation}, func(a, b Slot) int {
		return a.compare(b.Child, b.Generation)
	})
}

// Add adds a copy of s. It fails if the page already has the child's generation.
func (p *Page) Add(s Slot) error {
	if err := s.check(); err != nil {
		return fmt.Errorf("add to key page: %w", err)
	}
	i, ok := p.search(s.Child, s.Generation)
	if ok {
		return fmt.Errorf("add to key page: child %d generation %d is already in it", s.Child, s.Generation)
	}
	p.slots = slices.Insert(p.slots, i, s.clone())
	return nil
}

// Remove removes a slot, wipes its key, and reports whether the page had it.
func (p *Page) Remove(child int64, generation uint32) bool {
	i, ok := p.search(child, generation)
	if !ok {
		return false
	}
	p.slots[i].Key.Zero()
	p.slots = slices.Delete(p.slots, i, i+1)
	return true
}

// Zero wipes every key and empties the page.
func (p *Page) Zero() {
	for i := range p.slots {
		p.slots[i].Key.Zero()
	}
	p.slots = nil
}

// Merge returns a page with copies of the slots of both pages. It fails if both have
// the same generation of a child.
func Merge(a, b *Page) (*Page, error) {
	p, err := NewPage(slices.Concat(a.slots, b.slots)...)
	if err != nil {
		return nil, fmt.Errorf("merge key pages: %w", err)
	}
	return p, nil
}

// Split returns pages with copies of p's slots, in order, each with n slots except
// the last, which may have fewer. For an empty page it returns none. It panics unless
// n is positive.
func (p *Page) Split(n int) []*Page {
	var pages []*Page
	for part := range slices.Chunk(p.slots, n) {
		pages = append(pages, &Page{slots: cloneSlots(part)})
	}
	return pages
}

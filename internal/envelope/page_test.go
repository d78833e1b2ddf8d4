package envelope

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// slotID is a slot's place in the model of a page: a plain map.
type slotID struct {
	child      int64
	generation uint32
}

// TestPageOperationsKeepExactlyTheKeysOfTheModel runs random sequences of
// page operations on several pages at once, and compares them with a map.
func TestPageOperationsKeepExactlyTheKeysOfTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type sealedPage struct {
			ec     EncryptionContext
			parent *Key
			body   []byte
		}
		model := map[slotID][]byte{}
		parents := []*Key{testKey("0"), testKey("1"), testKey("2")}
		var pages []sealedPage
		nextPage := int64(0)

		// store seals p as a new page; an empty one vanishes.
		store := func(p *Page) {
			if p.Len() == 0 {
				return
			}
			nextPage++
			g := rapid.IntRange(0, 2).Draw(t, "parent")
			s := sealedPage{parent: parents[g], ec: EncryptionContext{Tenant: 9, Parent: 100, Generation: uint32(g + 1), Child: nextPage, Class: ClassActive, Version: 1, Count: uint32(p.Len())}}
			body, err := SealPage(s.parent, s.ec, p)
			if err != nil {
				t.Fatal(err)
			}
			s.body = body
			pages = append(pages, s)
		}
		// take opens one page and removes it from the store.
		take := func() *Page {
			i := rapid.IntRange(0, len(pages)-1).Draw(t, "page")
			p, err := OpenPage(pages[i].parent, pages[i].ec, pages[i].body)
			if err != nil {
				t.Fatal(err)
			}
			pages = slices.Delete(pages, i, i+1)
			return p
		}
		needsPages := func(n int) {
			if len(pages) < n {
				t.Skip("too few pages")
			}
		}
		drawID := func() slotID {
			return slotID{rapid.Int64Range(1, 12).Draw(t, "child"), rapid.Uint32Range(0, 2).Draw(t, "generation")}
		}
		drawSlot := func(id slotID) Slot {
			key := NewKey()
			model[id] = key.Bytes()
			return Slot{Child: id.child, Generation: id.generation, Key: *key}
		}

		t.Repeat(map[string]func(*rapid.T){
			"new": func(*rapid.T) {
				id := drawID()
				if model[id] != nil {
					return
				}
				p, err := NewPage(drawSlot(id))
				if err != nil {
					t.Fatal(err)
				}
				store(p)
			},
			"add": func(*rapid.T) {
				needsPages(1)
				p, id := take(), drawID()
				if _, here := p.Find(id.child, id.generation); here {
					if err := p.Add(Slot{Child: id.child, Generation: id.generation, Key: *NewKey()}); err == nil {
						t.Fatal("a slot was put over another")
					}
				} else if model[id] == nil {
					if err := p.Add(drawSlot(id)); err != nil {
						t.Fatal(err)
					}
				}
				store(p)
			},
			"remove": func(*rapid.T) {
				needsPages(1)
				p, id := take(), drawID()
				_, here := p.Find(id.child, id.generation)
				if removed := p.Remove(id.child, id.generation); removed != here {
					t.Fatalf("removed is %v, found was %v", removed, here)
				} else if removed {
					delete(model, id)
				}
				store(p)
			},
			"merge": func(*rapid.T) {
				needsPages(2)
				a, b := take(), take()
				p, err := Merge(a, b)
				if err != nil {
					t.Fatal(err)
				}
				a.Zero()
				b.Zero()
				store(p)
			},
			"split": func(*rapid.T) {
				needsPages(1)
				p, n := take(), rapid.IntRange(1, 5).Draw(t, "n")
				parts := p.Split(n)
				p.Zero()
				for i, part := range parts {
					if part.Len() > n || part.Len() < n && i < len(parts)-1 {
						t.Fatalf("part %d of %d has %d slots, not %d", i, len(parts), part.Len(), n)
					}
					store(part)
				}
			},
			"reseal": func(*rapid.T) {
				needsPages(1)
				s := &pages[rapid.IntRange(0, len(pages)-1).Draw(t, "page")]
				g := rapid.IntRange(0, 2).Draw(t, "to")
				ec := s.ec
				ec.Generation, ec.Version = uint32(g+1), ec.Version+1
				body, err := Reseal(s.parent, parents[g], s.ec, ec, s.body)
				if err != nil {
					t.Fatal(err)
				}
				s.ec, s.parent, s.body = ec, parents[g], body
			},
			"": func(*rapid.T) {
				seen := map[slotID]bool{}
				for _, s := range pages {
					p, err := OpenPage(s.parent, s.ec, s.body)
					if err != nil {
						t.Fatal(err)
					}
					slots := p.Slots()
					if p.Len() != len(slots) || p.Len() != int(s.ec.Count) {
						t.Fatalf("%d slots, Len %d, Count %d", len(slots), p.Len(), s.ec.Count)
					}
					if !slices.IsSortedFunc(slots, func(a, b Slot) int {
						return cmp.Or(cmp.Compare(a.Child, b.Child), cmp.Compare(a.Generation, b.Generation))
					}) {
						t.Fatalf("slots out of order: %v", slots)
					}
					for _, slot := range slots {
						id := slotID{slot.Child, slot.Generation}
						found, ok := p.Find(id.child, id.generation)
						if seen[id] || !ok || !found.Equal(&slot.Key) || string(slot.Key.Bytes()) != string(model[id]) {
							t.Fatalf("slot %v: seen before %v, found %v, or not the model's key", id, seen[id], ok)
						}
						seen[id] = true
					}
				}
				if len(seen) != len(model) {
					t.Fatalf("the pages hold %d keys, the model %d", len(seen), len(model))
				}
			},
		})
	})
}

func TestAPageStoresAndReturnsCopies(t *testing.T) {
	key := NewKey()
	kept, _ := KeyFrom(key.Bytes())
	page, err := NewPage(Slot{Child: 1, Key: *key})
	if err != nil {
		t.Fatal(err)
	}
	other := NewKey()
	keptOther, _ := KeyFrom(other.Bytes())
	if err := page.Add(Slot{Child: 2, Key: *other}); err != nil {
		t.Fatal(err)
	}
	merged, err := Merge(page, &Page{})
	if err != nil {
		t.Fatal(err)
	}
	parts := page.Split(1)
	found, _ := page.Find(1, 0)
	slots := page.Slots()

	// Wipe one after the other; the remaining ones must not change.
	holds := func(what string, p *Page) {
		t.Helper()
		for child, want := range map[int64]*Key{1: kept, 2: keptOther} {
			if got, ok := p.Find(child, 0); !ok || !got.Equal(want) {
				t.Errorf("%s: the key of child %d is gone", what, child)
			}
		}
	}
	key.Zero()
	other.Zero()
	found.Zero()
	slots[0].Key.Zero()
	holds("zeroing what went in and came out", page)
	parts[0].Zero()
	holds("zeroing a part", page)
	merged.Zero()
	holds("zeroing the merged page", page)
	inside := page.slots[0].Key
	page.Zero()
	if got, ok := parts[1].Find(2, 0); !ok || !got.Equal(keptOther) {
		t.Error("zeroing the page reached a part of it")
	}
	if page.Len() != 0 || !inside.isZero() {
		t.Error("a zeroed page still has keys")
	}
}

func TestRemoveWipesTheKey(t *testing.T) {
	page, _ := NewPage(Slot{Child: 1, Key: *NewKey()})
	inside := page.slots[0].Key
	if !page.Remove(1, 0) || !inside.isZero() {
		t.Error("the removed key is still in memory")
	}
}

func TestPagesRefuseInvalidSlots(t *testing.T) {
	key := *NewKey()
	good := Slot{Child: 5, Generation: 1, Key: key}
	cases := map[string]struct {
		slot Slot
		want string
	}{
		"the same child and generation": {Slot{Child: 5, Generation: 1, Key: *NewKey()}, "child 5 generation 1"},
		"the same slot":                 {good, "child 5 generation 1"},
		"child 0":                       {Slot{Child: 0, Key: key}, "child 0 is not an id"},
		"a negative child":              {Slot{Child: -1, Key: key}, "child -1 is not an id"},
		"no key":                        {Slot{Child: 6}, "child 6 generation 0: the key was zeroed"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			page, err := NewPage(good)
			if err != nil {
				t.Fatal(err)
			}
			if err := page.Add(c.slot); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Add: %v, want %q in it", err, c.want)
			}
			if _, err := NewPage(good, c.slot); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("NewPage: %v, want %q in it", err, c.want)
			}
			if page.Len() != 1 {
				t.Error("the refused slot is in the page")
			}
		})
	}
	a, _ := NewPage(good)
	if _, err := Merge(a, a); err == nil || !strings.Contains(err.Error(), "child 5 generation 1") {
		t.Errorf("merging a page with itself: %v", err)
	}
}

func TestAnEmptyPageSplitsIntoNoParts(t *testing.T) {
	if parts := (&Page{}).Split(3); len(parts) != 0 {
		t.Errorf("%d parts", len(parts))
	}
	defer func() {
		if recover() == nil {
			t.Error("Split(0) did not panic")
		}
	}()
	randomPage(2).Split(0)
}

func TestFindReturnsNoKeyThatWasNotAdded(t *testing.T) {
	page := randomPage(3)
	for _, id := range []slotID{{0, 1}, {1, 0}, {1, 2}, {4, 1}, {-1, 1}} {
		if _, ok := page.Find(id.child, id.generation); ok {
			t.Errorf("found %v", id)
		}
	}
}

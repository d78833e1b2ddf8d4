package envelope

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
)

func testPage() *Page {
	page, err := NewPage(
		Slot{Child: 3, Generation: 1, Key: *testKey("three")},
		Slot{Child: 7, Generation: 2, Key: *testKey("seven")},
	)
	if err != nil {
		panic(err)
	}
	return page
}

func samePages(a, b *Page) bool {
	return slices.EqualFunc(a.slots, b.slots, func(a, b Slot) bool {
		return a.Child == b.Child && a.Generation == b.Generation && a.Key.Equal(&b.Key)
	})
}

// TestAForgedPageIsRefusedAndNamed tests the forgeries that an attacker with access to
// the database, but not to the keys, can make.
func TestAForgedPageIsRefusedAndNamed(t *testing.T) {
	parent, newer := testKey("parent"), testKey("newer parent")
	body, err := SealPage(parent, testContext, testPage())
	if err != nil {
		t.Fatal(err)
	}
	next := testContext
	next.Version++
	updated, err := SealPage(parent, next, testPage())
	if err != nil {
		t.Fatal(err)
	}
	otherPage := testContext
	otherPage.Child = 45
	otherBody, err := SealPage(parent, otherPage, testPage())
	if err != nil {
		t.Fatal(err)
	}
	contextWith := func(change func(*EncryptionContext)) EncryptionContext {
		p := testContext
		change(&p)
		return p
	}
	cases := map[string]struct {
		parent *Key
		ec     EncryptionContext
		body   []byte
		names  string
	}{
		"moved to another parent, with its key":         {newer, contextWith(func(p *EncryptionContext) { p.Parent = 23 }), body, "parent 23"},
		"moved to another parent id under the same key": {parent, contextWith(func(p *EncryptionContext) { p.Parent = 23 }), body, "parent 23"},
		"of an older generation, with the newer key":    {newer, contextWith(func(p *EncryptionContext) { p.Generation = 4 }), body, "generation 4"},
		"of an older generation, with its own key":      {parent, contextWith(func(p *EncryptionContext) { p.Generation = 4 }), body, "generation 4"},
		"moved to another id":                           {parent, contextWith(func(p *EncryptionContext) { p.Child = 45 }), body, "child 45"},
		"of another page, put here":                     {parent, testContext, otherBody, "child 44"},
		"moved to another class":                        {parent, contextWith(func(p *EncryptionContext) { p.Class = ClassInactive }), body, "class inactive"},
		"moved to another tenant":                       {parent, contextWith(func(p *EncryptionContext) { p.Tenant = 12 }), body, "tenant 12"},
		"an older version put back":                     {parent, next, body, "version 56"},
		"a newer version under an older number":         {parent, testContext, updated, "version 55"},
		"count raised":                                  {parent, contextWith(func(p *EncryptionContext) { p.Count = 3 }), body, "3 slots"},
		"count lowered":                                 {parent, contextWith(func(p *EncryptionContext) { p.Count = 1 }), body, "1 slots"},
		"count beyond all pages":                        {parent, contextWith(func(p *EncryptionContext) { p.Count = 1 << 31 }), body, "2147483648 slots"},
		"count lowered and a slot cut off":              {parent, contextWith(func(p *EncryptionContext) { p.Count = 1 }), body[:len(body)-slotSize], "1 slots"},
		"count raised and a slot added":                 {parent, contextWith(func(p *EncryptionContext) { p.Count = 3 }), append(bytes.Clone(body), make([]byte, slotSize)...), "3 slots"},
		"emptied":                                       {parent, contextWith(func(p *EncryptionContext) { p.Count = 0 }), body[:overhead], "0 slots"},
		"no body":                                       {parent, testContext, nil, "child 44"},
		"sealed for another purpose":                    {parent, testContext, Seal(parent, PurposeMetadata, testContext, make([]byte, 2*slotSize)), "key page"},
		"sealed under a key that is not the parent's":   {parent, testContext, sealed(t, NewKey(), testContext), "parent 22"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := OpenPage(c.parent, c.ec, c.body)
			wantDamaged(t, err, "open key page", c.names, fmt.Sprintf("child %d of tenant %d", c.ec.Child, c.ec.Tenant))
			to := c.ec
			to.Version++
			_, err = Reseal(c.parent, NewKey(), c.ec, to, c.body)
			wantDamaged(t, err, "open key page", c.names)
		})
	}
}

func sealed(t *testing.T, key *Key, ec EncryptionContext) []byte {
	body, err := SealPage(key, ec, testPage())
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestAPageOpensInNoEncryptionContextThatDiffersInAnyField(t *testing.T) {
	parent := testKey("parent")
	body := sealed(t, parent, testContext)
	for name, ec := range alterations(testContext) {
		if _, err := OpenPage(parent, ec, body); err == nil {
			t.Errorf("%s: it opened", name)
		} else {
			wantDamaged(t, err, ec.String())
		}
	}
}

func TestResealMovesExactlyTheKeys(t *testing.T) {
	from, to := NewKey(), NewKey()
	for _, slots := range []int{1, 2, 127, 128, 512, MaxSlots} {
		page := randomPage(slots)
		old := EncryptionContext{Tenant: 1, Parent: 2, Generation: 1, Child: 3, Class: ClassActive, Version: 9, Count: uint32(slots)}
		new := EncryptionContext{Tenant: 1, Parent: 5, Generation: 2, Child: 4, Class: ClassInactive, Version: 10, Count: uint32(slots)}
		body, err := SealPage(from, old, page)
		if err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(body)
		resealed, err := Reseal(from, to, old, new, body)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(body, before) {
			t.Error("Reseal changed its input")
		}
		got, err := OpenPage(to, new, resealed)
		if err != nil || !samePages(got, page) {
			t.Fatalf("%d slots: opened %v", slots, err)
		}
		_, err = OpenPage(from, old, resealed)
		wantDamaged(t, err)
		same, err := ResealInPlace(from, to, old, new, body)
		if err != nil || &same[0] != &body[0] {
			t.Fatalf("%d slots: not resealed in place: %v", slots, err)
		}
		if got, err := OpenPage(to, new, same); err != nil || !samePages(got, page) {
			t.Fatalf("%d slots: opened %v", slots, err)
		}
	}
}

func TestPagesThatMustNotBeSealedAreNot(t *testing.T) {
	parent := NewKey()
	contextWith := func(count int, change func(*EncryptionContext)) EncryptionContext {
		p := testContext
		p.Count = uint32(count)
		if change != nil {
			change(&p)
		}
		return p
	}
	cases := map[string]struct {
		ec   EncryptionContext
		page *Page
		want string
	}{
		"empty":                        {contextWith(0, nil), &Page{}, "0 slots"},
		"zeroed":                       {contextWith(2, nil), &Page{}, "the page has 0 slots"},
		"count too low":                {contextWith(1, nil), testPage(), "the page has 2 slots"},
		"count too high":               {contextWith(3, nil), testPage(), "the page has 2 slots"},
		"too many slots":               {contextWith(MaxSlots+1, nil), randomPage(MaxSlots + 1), "the page has 1025 slots"},
		"without a class":              {contextWith(2, func(p *EncryptionContext) { p.Class = 0 }), testPage(), "unknown class"},
		"of an unknown class":          {contextWith(2, func(p *EncryptionContext) { p.Class = 10 }), testPage(), "unknown class"},
		"a version past the key's end": {contextWith(2, func(p *EncryptionContext) { p.Version = 1 << 32 }), testPage(), "version"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			body, err := SealPage(parent, c.ec, c.page)
			if err == nil || body != nil || !strings.Contains(err.Error(), c.want) || fail.CodeOf(err) != api.Internal {
				t.Errorf("SealPage: %v, want an internal error with %q", err, c.want)
			}
		})
	}
	body := sealed(t, parent, testContext)
	moves := map[string]func(*EncryptionContext){
		"to another tenant":     func(p *EncryptionContext) { p.Tenant++ },
		"to another count":      func(p *EncryptionContext) { p.Count++ },
		"to an unknown class":   func(p *EncryptionContext) { p.Class = 0 },
		"past the last version": func(p *EncryptionContext) { p.Version = 1 << 32 },
	}
	for name, change := range moves {
		t.Run("reseal "+name, func(t *testing.T) {
			new := testContext
			change(&new)
			if body, err := Reseal(parent, NewKey(), testContext, new, body); err == nil || body != nil || fail.CodeOf(err) != api.Internal {
				t.Errorf("Reseal: %v, want an internal error", err)
			}
		})
	}
}

// malformed are plaintexts that are correctly sealed but are not valid pages.
func malformed() map[string][]byte {
	good := appendSlots(nil, testPage().slots)
	a, b := good[:slotSize], good[slotSize:]
	alter := func(at int, with ...byte) []byte {
		p := bytes.Clone(good)
		copy(p[at:], with)
		return p
	}
	return map[string][]byte{
		"out of order":              slices.Concat(b, a),
		"the same slot twice":       slices.Concat(a, a),
		"the same child, older":     slices.Concat(a, a[:11], []byte{0}, b[12:]),
		"child zero":                alter(0, make([]byte, 8)...),
		"a negative child":          alter(0, 0x80),
		"a negative child, later":   alter(slotSize, 0xff),
		"a slot without a key":      alter(12, make([]byte, KeySize)...),
		"a last slot without a key": alter(slotSize+12, make([]byte, KeySize)...),
	}
}

func TestAMalformedPageIsRefusedAlthoughItsSealIsValid(t *testing.T) {
	parent := testKey("parent")
	for name, plain := range malformed() {
		t.Run(name, func(t *testing.T) {
			body := Seal(parent, PurposePage, testContext, plain)
			_, err := OpenPage(parent, testContext, body)
			wantDamaged(t, err, "open key page", testContext.String())
			_, err = Reseal(parent, NewKey(), testContext, testContext, body)
			wantDamaged(t, err, "open key page", testContext.String())
		})
	}
	// Counts that match the body's length but are not valid for a page.
	for _, count := range []uint32{0, MaxSlots + 1} {
		ec := testContext
		ec.Count = count
		body := Seal(parent, PurposePage, ec, appendSlots(nil, randomPage(int(count)).slots))
		_, err := OpenPage(parent, ec, body)
		wantDamaged(t, err, fmt.Sprintf("%d slots", count))
	}
}

// A key is missing only when all of its bytes are zero.
func TestAKeyWithOneNonZeroByteIsValid(t *testing.T) {
	parent, ec := testKey("parent"), testContext
	ec.Count = 1
	for i := range KeySize {
		raw := make([]byte, KeySize)
		raw[i] = 0x80
		key, err := KeyFrom(raw)
		if err != nil {
			t.Fatal(err)
		}
		page, err := NewPage(Slot{Child: 1, Key: *key})
		if err != nil {
			t.Fatal(err)
		}
		body, err := SealPage(parent, ec, page)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := OpenPage(parent, ec, body); err != nil || !samePages(got, page) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
}

func TestNoPlaintextStaysInScratch(t *testing.T) {
	s := new(scratch)
	ec := testContext
	ec.Count = MaxSlots
	body, err := SealPage(testKey("parent"), ec, randomPage(MaxSlots))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := openSlots(s.plain[:0], testKey("parent"), ec, body)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.seal(nil, testKey("to"), ec, plain); err != nil {
		t.Fatal(err)
	}
	if &plain[0] != &s.plain[0] || allZero(s.plain[:]) || allZero(s.reopened[:]) {
		t.Fatal("the scratch was not used")
	}
	s.release(ec.Count)
	if !allZero(s.plain[:]) || !allZero(s.reopened[:]) {
		t.Error("plaintext stays in the scratch")
	}
}

func TestSharedScratchMixesNoPages(t *testing.T) {
	done := make(chan error)
	for g := range 4 {
		go func() {
			done <- func() error {
				for i := range 50 {
					slots := 1 + (g*37+i*11)%200
					page, from, to := randomPage(slots), NewKey(), NewKey()
					ec := testContext
					ec.Count = uint32(slots)
					body, err := SealPage(from, ec, page)
					if err != nil {
						return err
					}
					if body, err = Reseal(from, to, ec, ec, body); err != nil {
						return err
					}
					if got, err := OpenPage(to, ec, body); err != nil || !samePages(got, page) {
						return fmt.Errorf("opened to another page: %v", err)
					}
				}
				return nil
			}()
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func FuzzOpenPage(f *testing.F) {
	parent, page := testKey("parent"), testPage()
	body, err := SealPage(parent, testContext, page)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(2), body)
	f.Add(uint32(1), body[:len(body)-slotSize])
	f.Add(uint32(0), body[:overhead])
	f.Add(uint32(1<<31), body)
	f.Add(uint32(2), []byte{})
	for _, plain := range malformed() {
		f.Add(uint32(2), Seal(parent, PurposePage, testContext, plain))
	}
	f.Fuzz(func(t *testing.T, count uint32, b []byte) {
		ec := testContext
		ec.Count = count
		got, err := OpenPage(parent, ec, b)
		if err != nil {
			wantDamaged(t, err)
			return
		}
		if !samePages(got, page) {
			t.Errorf("opened to another page")
		}
	})
}

// FuzzPagePlaintext: every input that checkSlots accepts is the only encoding of its page.
func FuzzPagePlaintext(f *testing.F) {
	f.Add(appendSlots(nil, testPage().slots))
	f.Add(appendSlots(nil, randomPage(3).slots))
	f.Add([]byte{})
	for _, plain := range malformed() {
		f.Add(plain)
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		count := uint32(len(plain) / slotSize)
		if checkSlots(plain, count+1) == nil {
			t.Error("a count that is not the plaintext's passes")
		}
		if err := checkSlots(plain, count); err != nil {
			return
		}
		slots := parseSlots(plain)
		page, err := NewPage(slots...)
		if err != nil {
			t.Fatalf("a checked plaintext makes no page: %v", err)
		}
		if again := appendSlots(nil, page.slots); !bytes.Equal(again, plain) {
			t.Errorf("%x is written as %x", plain, again)
		}
		for i, s := range slots {
			if uint64(s.Child) != binary.BigEndian.Uint64(plain[i*slotSize:]) {
				t.Errorf("slot %d is of child %d", i, s.Child)
			}
		}
	})
}

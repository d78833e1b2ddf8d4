package envelope

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"

	"keyroll/api"
	"keyroll/internal/fail"
)

// slotSize is the length of a slot in a page's plaintext: child 8, generation 4, key 32.
const slotSize = 8 + 4 + KeySize

// SealPage seals p under parent, bound to ec. Before it returns the result, it opens it
// again and compares. ec.Count must be p.Len(), from 1 to MaxSlots: a page without slots
// is deleted, not sealed.
func SealPage(parent *Key, ec EncryptionContext, p *Page) ([]byte, error) {
	if p.Len() < 1 || p.Len() > MaxSlots || uint32(p.Len()) != ec.Count {
		return nil, fmt.Errorf("seal key page %v: the page has %d slots", ec, p.Len())
	}
	s := takeScratch()
	defer s.release(ec.Count)
	return s.seal(nil, parent, ec, appendSlots(s.plain[:0], p.slots))
}

// OpenPage opens a sealed page. It fails Damaged, naming the encryption context, if body
// was sealed in another encryption context or altered.
func OpenPage(parent *Key, ec EncryptionContext, body []byte) (*Page, error) {
	s := takeScratch()
	defer s.release(ec.Count)
	plain, err := openSlots(s.plain[:0], parent, ec, body)
	if err != nil {
		return nil, err
	}
	return &Page{slots: parseSlots(plain)}, nil
}

// Reseal moves a sealed page from one parent key and encryption context to another, as a
// roll does: it opens body, checks its slots, seals them, opens the result again and
// compares. Tenant and count must be the same. It fails Damaged, naming the old
// encryption context, if body was not sealed in it.
func Reseal(from, to *Key, old, new EncryptionContext, body []byte) ([]byte, error) {
	return ResealInPlace(from, to, old, new, bytes.Clone(body))
}

// ResealInPlace is Reseal, but the result is in the memory of body, whose content is
// undefined if it fails. A roll of many pages then needs the memory of few.
func ResealInPlace(from, to *Key, old, new EncryptionContext, body []byte) ([]byte, error) {
	if old.Tenant != new.Tenant || old.Count != new.Count {
		return nil, fmt.Errorf("reseal key page %v: tenant and count must stay the same, but those of %v differ", old, new)
	}
	s := takeScratch()
	defer s.release(old.Count)
	plain, err := openSlots(s.plain[:0], from, old, body)
	if err != nil {
		return nil, err
	}
	return s.seal(body, to, new, plain)
}

// scratch holds the plaintext of a page, and that of its sealed form opened again.
type scratch struct {
	plain, reopened [MaxSlots * slotSize]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func takeScratch() *scratch { return scratches.Get().(*scratch) }

// release wipes the part that a page of count slots used, and returns the scratch to
// the pool.
func (s *scratch) release(count uint32) {
	used := min(count, MaxSlots) * slotSize
	clear(s.plain[:used])
	clear(s.reopened[:used])
	scratches.Put(s)
}

// seal seals a page's plaintext, in the memory of dst if that is long enough, and opens
// it again as OpenPage would.
func (s *scratch) seal(dst []byte, parent *Key, ec EncryptionContext, plain []byte) ([]byte, error) {
	switch {
	case !ec.Class.known():
		return nil, fmt.Errorf("seal key page %v: unknown class", ec)
	case ec.Version > math.MaxUint32:
		// NIST SP 800-38D section 8.3: at most 2^32 seals with random nonces a key.
		return nil, fmt.Errorf("seal key page %v: its version exceeds what one key may seal", ec)
	}
	aead, err := sealAEAD(parent, PurposePage, ec)
	if err != nil {
		return nil, fmt.Errorf("seal key page %v: %w", ec, err)
	}
	body := sealInto(dst, aead, PurposePage, ec, plain)
	reopened, err := openSlots(s.reopened[:0], parent, ec, body)
	if err != nil {
		// Not %w: the database is not damaged, it has not been written.
		return nil, fmt.Errorf("seal key page: the sealed page cannot be decrypted: %v", err)
	}
	if subtle.ConstantTimeCompare(plain, reopened) != 1 {
		return nil, fmt.Errorf("seal key page %v: the sealed page decrypts to something else", ec)
	}
	return body, nil
}

// openSlots appends a page's plaintext to dst after it has checked it.
func openSlots(dst []byte, parent *Key, ec EncryptionContext, body []byte) ([]byte, error) {
	if ec.Count > MaxSlots || len(body) != overhead+int(ec.Count)*slotSize {
		return nil, fail.New(api.Damaged, "open key page %v: its body has %d bytes", ec, len(body))
	}
	plain, err := openInto(dst, parent, PurposePage, ec, body)
	if err != nil {
		return nil, err
	}
	if err := checkSlots(plain, ec.Count); err != nil {
		clear(plain)
		return nil, fail.New(api.Damaged, "open key page %v: %v", ec, err)
	}
	return plain, nil
}

// checkSlots fails unless plain is the plaintext of a page of count slots: from
// 1 to MaxSlots, strictly ascending by child and generation, each child a valid id,
// no key of zeros.
func checkSlots(plain []byte, count uint32) error {
	if count == 0 || count > MaxSlots {
		return fmt.Errorf("a page of %d slots", count)
	}
	if len(plain) != int(count)*slotSize {
		return fmt.Errorf("%d bytes for %d slots", len(plain), count)
	}
	var lastChild int64
	var lastGeneration uint32
	for ; len(plain) > 0; plain = plain[slotSize:] {
		child := int64(binary.BigEndian.Uint64(plain))
		generation := binary.BigEndian.Uint32(plain[8:])
		key := plain[12:slotSize]
		switch {
		case child <= 0:
			return errors.New("a child that is not an id")
		case child < lastChild || child == lastChild && generation <= lastGeneration:
			return errors.New("slots out of order")
		case binary.NativeEndian.Uint64(key)|binary.NativeEndian.Uint64(key[8:])|binary.NativeEndian.Uint64(key[16:])|binary.NativeEndian.Uint64(key[24:]) == 0:
			return errors.New("a slot without a key")
		}
		lastChild, lastGeneration = child, generation
	}
	return nil
}

func appendSlots(dst []byte, slots []Slot) []byte {
	for _, s := range slots {
		dst = binary.BigEndian.AppendUint64(dst, uint64(s.Child))
		dst = binary.BigEndian.AppendUint32(dst, s.Generation)
		dst = append(dst, s.Key.raw()...)
	}
	return dst
}

// parseSlots parses a plaintext that checkSlots has accepted.
func parseSlots(plain []byte) []Slot {
	slots := make([]Slot, len(plain)/slotSize)
	keys := make([][KeySize]byte, len(slots))
	for i := range slots {
		b := plain[i*slotSize:]
		keys[i] = [KeySize]byte(b[12:slotSize])
		slots[i] = Slot{
			Child:      int64(binary.BigEndian.Uint64(b)),
			Generation: binary.BigEndian.Uint32(b[8:]),
			Key:        keyAt(&keys[i]),
		}
	}
	return slots
}

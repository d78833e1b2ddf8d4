package envelope

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/internal/fail"
)

// KeySize is the length of every key, in bytes: AES-256.
const KeySize = 32

// redacted is the text of a key in all output.
const redacted = "[key]"

const deriveLabel = "keyroll/derive/1:"

// Key is an AES-256 key. It prints as [key] through fmt, log/slog, JSON and
// text. Copies of a Key share its bytes: zeroing one zeroes all. Keys cannot be
// compared with ==; use Equal.
type Key struct {
	_ [0]func() // no ==
	// fmt reads the unexported fields of a caller's struct without asking for
	// their methods. It shows a pointer there as an address, but follows one step
	// for a verb that does not suit pointers, such as %s: hence two.
	at **[KeySize]byte
}

func keyAt(b *[KeySize]byte) Key { return Key{at: &b} }

// NewKey returns a new random key.
func NewKey() *Key {
	b := new([KeySize]byte)
	rand.Read(b[:]) // never fails, see crypto/rand
	k := keyAt(b)
	return &k
}

// KeyFrom returns a key with a copy of b, which the caller may clear. It fails
// Damaged unless b is 32 bytes and not all of them are zero.
func KeyFrom(b []byte) (*Key, error) {
	if len(b) != KeySize {
		return nil, fail.New(api.Damaged, "read key: it has %d bytes, not %d", len(b), KeySize)
	}
	if allZero(b) {
		return nil, fail.New(api.Damaged, "read key: it is all zeros")
	}
	copied := [KeySize]byte(b)
	k := keyAt(&copied)
	return &k, nil
}

// Zero wipes the key and every copy that shares its bytes; a wiped key can neither
// open nor seal. The caller ensures that no other goroutine uses the key at the time.
// Key schedules inside Go's ciphers are not wiped; the garbage collector frees them.
func (k *Key) Zero() {
	if k != nil && k.at != nil {
		clear(k.raw())
	}
}

// Equal compares in constant time. A zeroed key equals no key.
func (k *Key) Equal(other *Key) bool {
	if k.isZero() || other.isZero() {
		return false
	}
	return subtle.ConstantTimeCompare(k.raw(), other.raw()) == 1
}

// Bytes returns a copy of the key's 32 bytes, for the few callers that pass a key to
// a vault or into a token. The caller clears it.
func (k *Key) Bytes() []byte {
	k.mustBeSet()
	return append([]byte(nil), k.raw()...)
}

// Derive returns the key that HKDF-SHA-256 yields for label: always the same for the
// same key and label. It reveals nothing about the key itself.
func (k *Key) Derive(label string) *Key {
	k.mustBeSet()
	derived := keyAt((*[KeySize]byte)(derive(k, deriveLabel+label)))
	return &derived
}

// MAC returns the 32 bytes of HMAC-SHA-256 over data. Each part is preceded by its
// length, so two different sequences of parts are never the same message. The first
// part should identify the purpose of the MAC.
func (k *Key) MAC(data ...[]byte) []byte {
	k.mustBeSet()
	h := hmac.New(sha256.New, k.raw())
	var length [8]byte
	for _, part := range data {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	return h.Sum(nil)
}

// raw returns the key's own bytes.
func (k *Key) raw() []byte { return (*k.at)[:] }

// Clone returns a copy of the key with bytes of its own, which is zeroed separately.
func (k *Key) Clone() *Key {
	b := **k.at
	c := keyAt(&b)
	return &c
}

// isZero reports whether the key was never set or was zeroed.
func (k *Key) isZero() bool {
	return k == nil || k.at == nil || allZero(k.raw())
}

func (k *Key) mustBeSet() {
	if k.isZero() {
		panic("envelope: " + errZeroed.Error())
	}
}

// allZero takes the same time for every b of one length.
func allZero(b []byte) bool {
	var or byte
	for _, x := range b {
		or |= x
	}
	return or == 0
}

// String returns "[key]".
func (Key) String() string { return redacted }

// Format prints [key] for every verb and flag.
func (Key) Format(s fmt.State, _ rune) { io.WriteString(s, redacted) }

// MarshalText returns "[key]", for encoding/json, log/slog and their like.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

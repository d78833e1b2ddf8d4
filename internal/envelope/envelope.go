// Package envelope seals keys, names, key pages and content, and opens them.
//
// Data sealed in one encryption context (tenant, parent and its generation, child,
// class, version, count) can be opened only in that context: data that was moved,
// swapped, truncated or replaced by an older version is refused as Damaged. The
// functions are pure: no I/O of their own, no clock, no context.Context, no SQL. No key
// is used for two purposes; a separate key is derived for each purpose, tenant and
// child. All primitives are Go's own and run with GODEBUG=fips140=only.
//
// docs/formats.md specifies every format to the byte; testdata/vectors.json has
// examples for other implementations. Start reading at Seal, then Reseal (used by
// rolls) and NewWriter (content).
package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"keyroll/api"
	"keyroll/internal/fail"
)

// sealLabel separates seals from every other use of a key and names the format.
const sealLabel = "keyroll/seal/1"

// sealFormat is the first byte of every seal.
const sealFormat = 1

// overhead is the number of bytes by which a seal is longer than its plaintext: the
// format byte, a 96-bit nonce and a 128-bit tag.
const overhead = 1 + gcmOverhead

const gcmOverhead = 12 + 16

// Purpose is the kind of data in a seal. Data sealed for one purpose cannot be opened
// for another. The values are in stored data and never change.
type Purpose uint8

const (
	// PurposePage is a key page (SealPage).
	PurposePage Purpose = 1
	// PurposePolicyKey is a policy key wrapped by an availability key.
	PurposePolicyKey Purpose = 2
	// PurposeMetadata is the metadata of an item or a container: subject, path, flags.
	PurposeMetadata Purpose = 3
	// PurposeName is the name of a container, a person or a target.
	PurposeName Purpose = 4
	// PurposeSecret is one of keyroll's own secrets under the seal.
	PurposeSecret Purpose = 5
)

var purposes = map[Purpose]string{
	PurposePage:      "key page",
	PurposePolicyKey: "policy key",
	PurposeMetadata:  "metadata",
	PurposeName:      "name",
	PurposeSecret:    "secret",
}

// String returns the purpose in words, for errors.
func (p Purpose) String() string {
	if s, ok := purposes[p]; ok {
		return s
	}
	return fmt.Sprintf("purpose %d", uint8(p))
}

// errZeroed is the use of a key that Zero has wiped or that was never set. It has no
// code: it is a bug in keyroll, not damage.
var errZeroed = errors.New("the key was zeroed or never set")

// Seal encrypts plaintext for a purpose, bound to an encryption context. The result is
// 29 bytes longer than plaintext and different at each call.
//
// AES-256-GCM with a random nonce, under a key of its own for each purpose,
// tenant and child; NIST SP 800-38D section 8.3 allows 2^32 seals for each such
// key. Seal panics on a zeroed key: a seal under zeros would protect nothing.
func Seal(key *Key, purpose Purpose, ec EncryptionContext, plaintext []byte) []byte {
	aead, err := sealAEAD(key, purpose, ec)
	if err != nil {
		panic(fmt.Sprintf("envelope: seal %v of %v: %v", purpose, ec, err))
	}
	return sealInto(nil, aead, purpose, ec, plaintext)
}

// Open returns the plaintext of a seal. It fails Damaged, naming purpose and encryption
// context, if sealed was made under another key, for another purpose or in another
// encryption context, or was altered.
func Open(key *Key, purpose Purpose, ec EncryptionContext, sealed []byte) ([]byte, error) {
	return openInto(nil, key, purpose, ec, sealed)
}

// openInto is Open, but appends the plaintext to dst.
func openInto(dst []byte, key *Key, purpose Purpose, ec EncryptionContext, sealed []byte) ([]byte, error) {
	switch {
	case len(sealed) < overhead:
		return nil, fail.New(api.Damaged, "open %v of %v: %d bytes are too short for a seal", purpose, ec, len(sealed))
	case sealed[0] != sealFormat:
		return nil, fail.New(api.Damaged, "open %v of %v: format %d is unknown", purpose, ec, sealed[0])
	}
	aead, err := sealAEAD(key, purpose, ec)
	if err != nil {
		return nil, fmt.Errorf("open %v of %v: %w", purpose, ec, err)
	}
	plaintext, err := aead.Open(dst, nil, sealed[1:], ec.additionalData(purpose))
	if err != nil {
		return nil, fail.New(api.Damaged, "open %v of %v: the seal does not match this key and encryption context, or was altered", purpose, ec)
	}
	return plaintext, nil
}

// sealInto returns a seal in the memory of dst, if that is long enough.
func sealInto(dst []byte, aead cipher.AEAD, purpose Purpose, ec EncryptionContext, plaintext []byte) []byte {
	sealed := append(slices.Grow(dst[:0], overhead+len(plaintext)), sealFormat)
	return aead.Seal(sealed, nil, plaintext, ec.additionalData(purpose))
}

// sealAEAD returns the cipher of one purpose, tenant and child under key.
func sealAEAD(key *Key, purpose Purpose, ec EncryptionContext) (cipher.AEAD, error) {
	info := make([]byte, 0, len(sealLabel)+17)
	info = append(info, sealLabel...)
	info = append(info, byte(purpose))
	info = binary.BigEndian.AppendUint64(info, uint64(ec.Tenant))
	info = binary.BigEndian.AppendUint64(info, uint64(ec.Child))
	return deriveAEAD(key, string(info))
}

// deriveAEAD returns AES-256-GCM with random nonces under HKDF-SHA-256(key, info).
func deriveAEAD(key *Key, info string) (cipher.AEAD, error) {
	if key.isZero() {
		return nil, errZeroed
	}
	derived := derive(key, info)
	defer clear(derived)
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// derive is HKDF-SHA-256 (RFC 5869) without a salt, 32 bytes long. It panics
// only if Go's crypto refuses SHA-256 or 32 bytes, which no mode does.
func derive(key *Key, info string) []byte {
	derived, err := hkdf.Key(sha256.New, key.raw(), nil, info, KeySize)
	if err != nil {
		panic("envelope: " + err.Error())
	}
	return derived
}

package envelope

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/google/uuid"
)

// go test ./internal/envelope -run TestVectors -update rewrites the file. Do that
// only when a format gets a new number: the old file ensures that old data stays
// readable.
var update = flag.Bool("update", false, "write testdata/vectors.json")

const vectorsFile = "testdata/vectors.json"

type vectors struct {
	Derive        []deriveVector
	MAC           []macVector
	Seal          []sealVector
	Page          []pageVector
	MalformedPage []malformedVector
	Bundle        []bundleVector
	Revision      []revisionVector
	Blob          []blobVector
	Range         []rangeVector
}

// hexBytes are hexadecimal text in the file.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }
func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

type deriveVector struct {
	Key     hexBytes
	Label   string
	Derived hexBytes
}

type macVector struct {
	Key   hexBytes
	Parts []hexBytes
	MAC   hexBytes
}

// contextVector is a EncryptionContext; numbers of 64 bits are strings, since JSON readers lose their last digits.
type contextVector struct {
	Tenant     int64 `json:",string"`
	Parent     int64 `json:",string"`
	Generation uint32
	Child      int64 `json:",string"`
	Class      Class
	Version    uint64 `json:",string"`
	Count      uint32
}

type sealVector struct {
	Key               hexBytes
	Purpose           Purpose
	EncryptionContext contextVector
	Info              hexBytes
	DerivedKey        hexBytes
	AdditionalData    hexBytes
	Plaintext         hexBytes
	Sealed            hexBytes
}

type slotVector struct {
	Child      int64 `json:",string"`
	Generation uint32
	Key        hexBytes
}

type pageVector struct {
	Parent            hexBytes
	EncryptionContext contextVector
	Slots             []slotVector
	Plaintext         hexBytes
	Body              hexBytes
}

type malformedVector struct {
	Why               string
	Parent            hexBytes
	EncryptionContext contextVector
	Body              hexBytes
}

type bindingVector struct {
	Tenant, Policy uuid.UUID
	PolicyKey      int64 `json:",string"`
	Generation     uint32
}

type bundleVector struct {
	PolicyKey hexBytes
	Binding   bindingVector
	Bundle    hexBytes
}

type revisionVector struct {
	Key                                          hexBytes
	ID                                           uuid.UUID
	Binding                                      bindingVector
	Primary, Secondary                           KeyVersion
	WrapPrimary, WrapSecondary, WrapAvailability hexBytes
	AvailabilityKey                              int64 `json:",string"`
	AvailabilityVersion                          uint32
	MAC                                          hexBytes
}

// blobVector: byte i of the plaintext is i mod 251. Sealed is base64.
type blobVector struct {
	Key          hexBytes
	Tenant, Blob int64 `json:",string"`
	PlainSize    int64
	Info         hexBytes
	DerivedKey   hexBytes
	Sealed       []byte
}

type rangeVector struct {
	PlainSize, Off, N    int64 `json:",string"`
	SealedOff, SealedLen int64 `json:",string"`
}

func makeVectors(t *testing.T) vectors {
	var v vectors
	key, ec := testKey("vectors"), EncryptionContext{Tenant: 1<<62 + 1, Parent: 0x0102030405060708, Generation: 0x0a0b0c0d, Child: 1<<53 + 1, Version: 7}
	for _, label := range []string{"", "a", "secret/token signing"} {
		v.Derive = append(v.Derive, deriveVector{key.Bytes(), label, key.Derive(label).Bytes()})
	}
	for _, parts := range [][][]byte{{}, {{}}, {[]byte("ab")}, {[]byte("a"), []byte("b")}, {[]byte("a"), {}, {0xff}}} {
		m := macVector{Key: key.Bytes(), MAC: key.MAC(parts...), Parts: []hexBytes{}}
		for _, p := range parts {
			m.Parts = append(m.Parts, p)
		}
		v.MAC = append(v.MAC, m)
	}
	for purpose := PurposePolicyKey; purpose <= PurposeSecret; purpose++ {
		for _, plaintext := range [][]byte{{}, bytes.Repeat([]byte("keyroll "), 4)} {
			v.Seal = append(v.Seal, sealVector{
				Key: key.Bytes(), Purpose: purpose, EncryptionContext: contextVector(ec),
				Info: infoOf(purpose, ec), DerivedKey: hkdfOf(key.Bytes(), infoOf(purpose, ec)), AdditionalData: additionalDataOf(purpose, ec),
				Plaintext: plaintext, Sealed: Seal(key, purpose, ec, plaintext),
			})
		}
	}
	// The encryption contexts of wraps by availability keys and of names, as they are in use.
	wrapped, named := EncryptionContext{Tenant: 7, Parent: 1<<62 + 3, Generation: 2, Child: 1<<62 + 5, Count: 1}, EncryptionContext{Tenant: 7, Parent: 9, Generation: 1, Child: 11, Version: 1}
	address := named
	address.Version = 2
	for _, one := range []struct {
		purpose   Purpose
		ec        EncryptionContext
		plaintext []byte
	}{{PurposePolicyKey, wrapped, Bundle(key, testBinding)}, {PurposeName, named, []byte("alice@contoso.com")}, {PurposeName, address, []byte("alice@fabrikam.com")}} {
		v.Seal = append(v.Seal, sealVector{
			Key: key.Bytes(), Purpose: one.purpose, EncryptionContext: contextVector(one.ec),
			Info: infoOf(one.purpose, one.ec), DerivedKey: hkdfOf(key.Bytes(), infoOf(one.purpose, one.ec)), AdditionalData: additionalDataOf(one.purpose, one.ec),
			Plaintext: one.plaintext, Sealed: Seal(key, one.purpose, one.ec, one.plaintext),
		})
	}
	for class := ClassActive; class <= ClassBlob; class++ {
		page, err := NewPage(
			Slot{Child: 5, Generation: 2, Key: *key.Derive("5/2")},
			Slot{Child: 5, Generation: 1, Key: *key.Derive("5/1")},
			Slot{Child: 1<<63 - 1, Generation: 1<<32 - 1, Key: *key.Derive("last")},
		)
		if err != nil {
			t.Fatal(err)
		}
		ec := ec
		ec.Class, ec.Count = class, 3
		body, err := SealPage(key, ec, page)
		if err != nil {
			t.Fatal(err)
		}
		p := pageVector{Parent: key.Bytes(), EncryptionContext: contextVector(ec), Plaintext: appendSlots(nil, page.slots), Body: body}
		for _, s := range page.slots {
			p.Slots = append(p.Slots, slotVector{s.Child, s.Generation, s.Key.Bytes()})
		}
		v.Page = append(v.Page, p)
	}
	bad := malformed()
	for _, why := range slices.Sorted(maps.Keys(bad)) {
		v.MalformedPage = append(v.MalformedPage, malformedVector{why, key.Bytes(), contextVector(testContext), Seal(key, PurposePage, testContext, bad[why])})
	}
	for _, b := range []Binding{{}, testBinding, {Tenant: testBinding.Policy, PolicyKey: 1<<62 + 1, Generation: 1<<32 - 1}} {
		v.Bundle = append(v.Bundle, bundleVector{key.Bytes(), bindingVector(b), Bundle(key, b)})
	}
	full := testRevision()
	erased := full
	erased.WrapPrimary, erased.WrapSecondary, erased.WrapAvailability = nil, nil, nil
	for _, r := range []Revision{full, erased} {
		v.Revision = append(v.Revision, revisionVector{key.Bytes(), r.ID, bindingVector(r.Binding), r.Primary, r.Secondary,
			r.WrapPrimary, r.WrapSecondary, r.WrapAvailability, r.AvailabilityKey, r.AvailabilityVersion, r.MAC(key)})
	}
	for _, size := range []int{0, 11, SegmentSize + 3} {
		info := blobInfoOf(testBlob)
		v.Blob = append(v.Blob, blobVector{key.Bytes(), testBlob.Tenant, testBlob.Blob, int64(size), info, hkdfOf(key.Bytes(), info), sealBlob(t, key, testBlob, pattern(size))})
	}
	for _, r := range [][3]int64{{0, 0, 0}, {11, 0, 11}, {11, 3, 0}, {65539, 65535, 1}, {65539, 65535, 2}, {65539, 65536, 3}, {1 << 48, 1<<48 - 1, 1}, {1 << 40, 1 << 30, 1 << 20}} {
		off, n := SealedRange(r[0], r[1], r[2])
		v.Range = append(v.Range, rangeVector{r[0], r[1], r[2], off, n})
	}
	return v
}

// The rest of this file implements docs/formats.md a second time, independently of the
// package's own code: binary.Write over structs, and direct calls of Go's primitives.

func bigEndian(fields ...any) []byte {
	var b bytes.Buffer
	for _, f := range fields {
		if s, ok := f.(string); ok {
			f = []byte(s)
		}
		if err := binary.Write(&b, binary.BigEndian, f); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func infoOf(purpose Purpose, p EncryptionContext) []byte {
	return bigEndian("keyroll/seal/1", uint8(purpose), p.Tenant, p.Child)
}

func additionalDataOf(purpose Purpose, p EncryptionContext) []byte {
	return bigEndian("keyroll/seal/1", uint8(purpose), uint8(p.Class), p.Tenant, p.Parent, p.Generation, p.Child, p.Version, p.Count)
}

func blobInfoOf(p BlobContext) []byte { return bigEndian("keyroll/blob/1", p.Tenant, p.Blob) }

func hkdfOf(key, info []byte) []byte {
	derived, err := hkdf.Key(sha256.New, key, nil, string(info), 32)
	if err != nil {
		panic(err)
	}
	return derived
}

func gcmOf(t *testing.T, key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// openAsDocumented opens a seal as described in docs/formats.md.
func openAsDocumented(t *testing.T, key []byte, purpose Purpose, p EncryptionContext, sealed []byte) []byte {
	if sealed[0] != 1 {
		t.Fatalf("format %d", sealed[0])
	}
	plain, err := gcmOf(t, hkdfOf(key, infoOf(purpose, p))).Open(nil, nil, sealed[1:], additionalDataOf(purpose, p))
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func TestVectors(t *testing.T) {
	if *update {
		var out bytes.Buffer
		enc := json.NewEncoder(&out)
		enc.SetIndent("", " ")
		if err := enc.Encode(makeVectors(t)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorsFile, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	dec := json.NewDecoder(bytes.NewReader(file))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	same := func(t *testing.T, what string, got, want []byte) {
		t.Helper()
		if !bytes.Equal(got, want) {
			t.Errorf("%s is %x\nthe file has %x", what, got, want)
		}
	}
	key := func(t *testing.T, b []byte) *Key {
		t.Helper()
		k, err := KeyFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	t.Run("derive", func(t *testing.T) {
		for _, d := range v.Derive {
			same(t, "derived", key(t, d.Key).Derive(d.Label).Bytes(), d.Derived)
			same(t, "derived as documented", hkdfOf(d.Key, []byte("keyroll/derive/1:"+d.Label)), d.Derived)
		}
	})
	t.Run("mac", func(t *testing.T) {
		for _, m := range v.MAC {
			h := hmac.New(sha256.New, m.Key)
			var parts [][]byte
			for _, p := range m.Parts {
				parts = append(parts, p)
				h.Write(bigEndian(uint64(len(p)), []byte(p)))
			}
			same(t, "MAC", key(t, m.Key).MAC(parts...), m.MAC)
			same(t, "MAC as documented", h.Sum(nil), m.MAC)
		}
	})
	t.Run("seal", func(t *testing.T) {
		for _, s := range v.Seal {
			ec := EncryptionContext(s.EncryptionContext)
			opened, err := Open(key(t, s.Key), s.Purpose, ec, s.Sealed)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "plaintext", opened, s.Plaintext)
			same(t, "plaintext as documented", openAsDocumented(t, s.Key, s.Purpose, ec, s.Sealed), s.Plaintext)
			same(t, "additional data", ec.additionalData(s.Purpose), s.AdditionalData)
			same(t, "additional data as documented", additionalDataOf(s.Purpose, ec), s.AdditionalData)
			same(t, "info", infoOf(s.Purpose, ec), s.Info)
			same(t, "derived key", hkdfOf(s.Key, s.Info), s.DerivedKey)
		}
	})
	t.Run("page", func(t *testing.T) {
		for _, p := range v.Page {
			page, err := OpenPage(key(t, p.Parent), EncryptionContext(p.EncryptionContext), p.Body)
			if err != nil {
				t.Fatal(err)
			}
			var documented []byte
			for i, s := range page.Slots() {
				if w := p.Slots[i]; s.Child != w.Child || s.Generation != w.Generation {
					t.Errorf("slot %d is of child %d generation %d", i, s.Child, s.Generation)
				}
				same(t, "slot key", s.Key.Bytes(), p.Slots[i].Key)
				documented = append(documented, bigEndian(s.Child, s.Generation, s.Key.Bytes())...)
			}
			same(t, "plaintext", appendSlots(nil, page.slots), p.Plaintext)
			same(t, "plaintext as documented", documented, p.Plaintext)
			same(t, "opened as documented", openAsDocumented(t, p.Parent, 1, EncryptionContext(p.EncryptionContext), p.Body), p.Plaintext)
		}
		for _, p := range v.MalformedPage {
			openAsDocumented(t, p.Parent, 1, EncryptionContext(p.EncryptionContext), p.Body) // its seal fits
			_, err := OpenPage(key(t, p.Parent), EncryptionContext(p.EncryptionContext), p.Body)
			if err == nil {
				t.Errorf("%s: it opens", p.Why)
			}
		}
	})
	t.Run("bundle", func(t *testing.T) {
		for _, b := range v.Bundle {
			digest := sha256.Sum256(bigEndian("keyroll/bundle/1", b.Binding.Tenant[:], b.Binding.Policy[:], b.Binding.PolicyKey, b.Binding.Generation))
			same(t, "bundle", Bundle(key(t, b.PolicyKey), Binding(b.Binding)), b.Bundle)
			same(t, "bundle as documented", slices.Concat(b.PolicyKey, digest[:]), b.Bundle)
		}
	})
	t.Run("revision", func(t *testing.T) {
		for _, r := range v.Revision {
			mac := Revision{r.ID, Binding(r.Binding), r.Primary, r.Secondary, r.WrapPrimary, r.WrapSecondary, r.WrapAvailability, r.AvailabilityKey, r.AvailabilityVersion}.MAC(key(t, r.Key))
			same(t, "MAC", mac, r.MAC)
			same(t, "MAC as documented", key(t, r.Key).MAC(
				[]byte("keyroll/revision/1"), r.ID[:], bigEndian(r.Binding.Tenant[:], r.Binding.Policy[:], r.Binding.PolicyKey, r.Binding.Generation),
				[]byte(r.Primary.Vault), []byte(r.Primary.Key), []byte(r.Primary.Version),
				[]byte(r.Secondary.Vault), []byte(r.Secondary.Key), []byte(r.Secondary.Version),
				r.WrapPrimary, r.WrapSecondary, r.WrapAvailability, bigEndian(r.AvailabilityKey, r.AvailabilityVersion)), r.MAC)
		}
	})
	t.Run("blob", func(t *testing.T) {
		for _, b := range v.Blob {
			ec, plain := BlobContext{b.Tenant, b.Blob}, pattern(int(b.PlainSize))
			got, err := io.ReadAll(NewReader(bytes.NewReader(b.Sealed), key(t, b.Key), ec, b.PlainSize))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "plaintext", got, plain)
			same(t, "info", blobInfoOf(ec), b.Info)
			same(t, "derived key", hkdfOf(b.Key, b.Info), b.DerivedKey)

			if string(b.Sealed[:8]) != "keyroll\x01" {
				t.Errorf("it begins with %q", b.Sealed[:8])
			}
			var documented []byte
			for i, rest := uint64(0), b.Sealed[8:]; len(rest) > 0; i++ {
				segment := rest[:min(len(rest), 65536+28)]
				rest = rest[len(segment):]
				opened, err := gcmOf(t, b.DerivedKey).Open(nil, nil, segment, bigEndian("keyroll/blob/1", b.Tenant, b.Blob, i, len(rest) == 0))
				if err != nil {
					t.Fatal(err)
				}
				documented = append(documented, opened...)
			}
			same(t, "plaintext as documented", documented, plain)
		}
		for _, r := range v.Range {
			if off, n := SealedRange(r.PlainSize, r.Off, r.N); off != r.SealedOff || n != r.SealedLen {
				t.Errorf("[%d,+%d) of %d is sealed [%d,+%d), the file has [%d,+%d)", r.Off, r.N, r.PlainSize, off, n, r.SealedOff, r.SealedLen)
			}
		}
	})
	for what, n := range map[string]int{"derive": len(v.Derive), "MAC": len(v.MAC), "seal": len(v.Seal), "page": len(v.Page), "malformed page": len(v.MalformedPage),
		"bundle": len(v.Bundle), "revision": len(v.Revision), "blob": len(v.Blob), "range": len(v.Range)} {
		if n == 0 {
			t.Errorf("the file has no %s vectors", what)
		}
	}
}

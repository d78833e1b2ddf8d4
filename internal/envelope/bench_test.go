package envelope

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

// BenchmarkReseal measures the cryptography of a roll on one core.
func BenchmarkReseal(b *testing.B) {
	for _, slots := range []int{128, 512, 1024} {
		b.Run(fmt.Sprintf("slots=%d", slots), func(b *testing.B) {
			from, to := NewKey(), NewKey()
			page := randomPage(slots)
			old := EncryptionContext{Tenant: 1, Parent: 2, Generation: 1, Child: 3, Class: ClassActive, Version: 1, Count: uint32(slots)}
			new := old
			new.Parent, new.Generation, new.Version = 4, 2, 2
			body, err := SealPage(from, old, page)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Reseal(from, to, old, new, body); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(slots)*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}

func BenchmarkSealBlob(b *testing.B) {
	key, plain := NewKey(), make([]byte, 8<<20)
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		w := NewWriter(io.Discard, key, BlobContext{Tenant: 1, Blob: 2})
		w.Write(plain)
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenBlob(b *testing.B) {
	key, plain := NewKey(), make([]byte, 8<<20)
	var sealed bytes.Buffer
	w := NewWriter(&sealed, key, BlobContext{Tenant: 1, Blob: 2})
	w.Write(plain)
	w.Close()
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		r := NewReader(bytes.NewReader(sealed.Bytes()), key, BlobContext{Tenant: 1, Blob: 2}, int64(len(plain)))
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, SegmentSize)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen measures the cost of one name or subject in a listing.
func BenchmarkOpen(b *testing.B) {
	key, ec := NewKey(), EncryptionContext{Tenant: 1, Parent: 2, Generation: 1, Child: 3}
	sealed := Seal(key, PurposeMetadata, ec, make([]byte, 100))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(key, PurposeMetadata, ec, sealed); err != nil {
			b.Fatal(err)
		}
	}
}

func randomPage(slots int) *Page {
	all := make([]Slot, slots)
	for i := range all {
		all[i] = Slot{Child: int64(i + 1), Generation: 1, Key: *NewKey()}
	}
	p, err := NewPage(all...)
	if err != nil {
		panic(err)
	}
	return p
}

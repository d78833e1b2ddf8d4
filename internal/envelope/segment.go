package envelope

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
)

const (
	// SegmentSize is how much plaintext one seal of a blob covers, in bytes. Only the
	// last segment may be shorter.
	SegmentSize = 64 << 10

	sealedSegment = SegmentSize + gcmOverhead

	// maxSegments is NIST SP 800-38D section 8.3: 2^32 seals with random nonces a key.
	maxSegments = 1 << 32

	// MaxBlob is the largest plaintext of one blob, in bytes: 256 TiB.
	MaxBlob = maxSegments * SegmentSize

	// blobHeader is the beginning of every sealed blob; its last byte is the format. The
	// format is also bound into each segment by blobLabel, so a range needs no header.
	blobHeader = "keyroll\x01"

	blobLabel = "keyroll/blob/1"
)

// BlobContext identifies a blob. It is bound into every segment.
type BlobContext struct {
	Tenant, Blob int64
}

// String returns the blob for errors.
func (p BlobContext) String() string { return fmt.Sprintf("blob %d of tenant %d", p.Blob, p.Tenant) }

func (p BlobContext) append(dst []byte) []byte {
	dst = append(dst, blobLabel...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.Tenant))
	return binary.BigEndian.AppendUint64(dst, uint64(p.Blob))
}

// aead returns the cipher of the blob's segments under its key.
func (p BlobContext) aead(key *Key) (cipher.AEAD, error) {
	return deriveAEAD(key, string(p.append(nil)))
}

// additionalData appends the additional data of a segment's seal to dst: the blob, the
// segment's number from 0, and whether it is the last.
func (p BlobContext) additionalData(dst []byte, segment int64, last bool) []byte {
	dst = binary.BigEndian.AppendUint64(p.append(dst), uint64(segment))
	if last {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// segments returns the number of segments of plain bytes. An empty blob has one, so
// that its end is sealed too.
func segments(plain int64) int64 { return max(1, (plain+SegmentSize-1)/SegmentSize) }

// SealedSize returns the length of the sealed form of plain bytes. It panics unless
// plain is from 0 to MaxBlob.
func SealedSize(plain int64) int64 {
	if plain < 0 || plain > MaxBlob {
		panic(fmt.Sprintf("envelope: a blob of %d bytes", plain))
	}
	return int64(len(blobHeader)) + plain + segments(plain)*gcmOverhead
}

// SealedRange returns which part of a sealed blob of plainSize bytes to fetch
// for the plaintext [off, off+n): whole segments, never the header. It returns
// 0, 0 if n is 0 or the range is not inside the blob.
func SealedRange(plainSize, off, n int64) (sealedOff, sealedLen int64) {
	if n == 0 || !inside(plainSize, off, n) {
		return 0, 0
	}
	first, last := off/SegmentSize, (off+n-1)/SegmentSize
	sealedOff = int64(len(blobHeader)) + first*sealedSegment
	end := min(int64(len(blobHeader))+(last+1)*sealedSegment, SealedSize(plainSize))
	return sealedOff, end - sealedOff
}

// inside reports whether [off, off+n) is inside a blob of plainSize bytes.
func inside(plainSize, off, n int64) bool {
	return 0 <= plainSize && plainSize <= MaxBlob && 0 <= off && off <= plainSize && 0 <= n && n <= plainSize-off
}

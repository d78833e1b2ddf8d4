package items

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/mbox"
)

// metadataLabel derives the key of an item's metadata from the key of its first
// blob, so that a roll that replaces blob keys also replaces the metadata's key.
const metadataLabel = "metadata"

// encryptionContext returns what the seal of the item's metadata is bound to.
func (r Row) encryptionContext() envelope.EncryptionContext {
	return envelope.EncryptionContext{Tenant: r.Tenant, Parent: r.Container, Child: r.ID, Version: r.Version}
}

// SealMetadata sets r.Metadata; key is that of the item's first blob.
func (r *Row) SealMetadata(key *envelope.Key, metadata any) error {
	plain, err := json.Marshal(metadata)
	if err != nil {
		return fmt.Errorf("seal metadata of item %d: %w", r.ID, err)
	}
	derived := key.Derive(metadataLabel)
	defer derived.Zero()
	r.Metadata = envelope.Seal(derived, envelope.PurposeMetadata, r.encryptionContext(), plain)
	return nil
}

// OpenMetadata reads r.Metadata into metadata; key is that of the first blob.
func (r Row) OpenMetadata(key *envelope.Key, metadata any) error {
	derived := key.Derive(metadataLabel)
	defer derived.Zero()
	plain, err := envelope.Open(derived, envelope.PurposeMetadata, r.encryptionContext(), r.Metadata)
	if err != nil {
		return fmt.Errorf("open item %d: %w", r.ID, err)
	}
	if err := json.Unmarshal(plain, metadata); err != nil {
		// The parser's error is left out: it may quote the metadata.
		return fail.New(api.Damaged, "open item %d: its metadata has an unknown format", r.ID)
	}
	return nil
}

// FileMetadata is the sealed metadata of a file. Size and Blobs bind the file to
// exactly its blobs in their order: changed rows can neither swap nor remove them.
type FileMetadata struct {
	Path     string    `json:"path"`
	Modified time.Time `json:"modified"`
	Size     int64     `json:"size"`
	Blobs    []byte    `json:"blobs"` // DigestOf
}

// Describes reports whether the metadata is that of an item with exactly these blobs, in
// their order.
func (m FileMetadata) Describes(item Row, blobs []Blob) bool {
	return m.Size == item.Size && bytes.Equal(m.Blobs, DigestOf(blobs))
}

// DigestOf is SHA-256 over the ids and sizes of blobs in their order, 8 bytes
// big-endian each.
func DigestOf(blobs []Blob) []byte {
	h := sha256.New()
	for _, b := range blobs {
		var pair [16]byte
		binary.BigEndian.PutUint64(pair[:8], uint64(b.ID))
		binary.BigEndian.PutUint64(pair[8:], uint64(b.Size))
		h.Write(pair[:])
	}
	return h.Sum(nil)
}

// MessageMetadata is the sealed metadata of a message. Head and Tail are how many of
// the stored bytes belong to the mbox rather than to the message: the "From " line
// before it, with anything that an mbox has before its first one, and the empty line
// after it.
type MessageMetadata struct {
	Head int64 `json:"head"`
	Tail int64 `json:"tail,omitempty"`
	// Next, of a message that does not end in an empty line, is the Previous of the
	// one that follows it in the mbox: an export puts nothing between the two.
	Next     int64 `json:"next,omitempty"`
	Previous int64 `json:"previous,omitempty"`
	mbox.Summary
}

// CheckBlobs fails unless blobs are all blobs of the item, in order.
func CheckBlobs(item Row, blobs []Blob) error {
	var size int64
	for i, b := range blobs {
		if b.Sequence != int64(i) {
			return fail.New(api.Damaged, "open item %d: blob number %d is missing", item.ID, i)
		}
		size += b.Size
	}
	if len(blobs) == 0 || size != item.Size {
		return fail.New(api.Damaged, "open item %d: its %d blobs have %d bytes, not %d", item.ID, len(blobs), size, item.Size)
	}
	return nil
}

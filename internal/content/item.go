package content

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// metadataLabel derives the key of an item's metadata from the key of its first
// blob, so that a roll that replaces blob keys also replaces the metadata's key.
const metadataLabel = "metadata"

// encryptionContext returns what the seal of the item's metadata is bound to.
func (r itemRow) encryptionContext() envelope.EncryptionContext {
	return envelope.EncryptionContext{Tenant: r.Tenant, Parent: r.Container, Child: r.ID, Version: r.Version}
}

// sealMetadata sets r.Metadata; key is that of the item's first blob.
func (r *itemRow) sealMetadata(key *envelope.Key, metadata any) error {
	plain, err := json.Marshal(metadata)
	if err != nil {
		return fmt.Errorf("seal metadata of item %d: %w", r.ID, err)
	}
	derived := key.Derive(metadataLabel)
	defer derived.Zero()
	r.Metadata = envelope.Seal(derived, envelope.PurposeMetadata, r.encryptionContext(), plain)
	return nil
}

// openMetadata reads r.Metadata into metadata; key is that of the first blob.
func (r itemRow) openMetadata(key *envelope.Key, metadata any) error {
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

// part is some items of a container with the keys of their first blobs.
type part struct {
	list []itemWithFirstBlob
	keys *keyring
}

// openPart reads up to limit items after an id and opens their keys.
func (s *Contents) openPart(ctx context.Context, c container.Container, query string, after int64, limit int) (p part, err error) {
	for range maxAttempts {
		if p, err = s.tryPart(ctx, c, query, after, limit); err != nil || !p.keys.stale {
			return p, err
		}
		p.keys.zero()
	}
	return part{}, rolledMeanwhile()
}

// maxAttempts is how often a read starts over because others replaced the keys that it
// depends on.
const maxAttempts = 10

func rolledMeanwhile() error {
	return fail.New(api.Conflict, "the container's keys were replaced %d times during the request", maxAttempts).WithHint("try again")
}

func (s *Contents) tryPart(ctx context.Context, c container.Container, query string, after int64, limit int) (part, error) {
	var p part
	var blobs []blobRow
	var pages pageSet
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		if p.list, err = selectPart(ctx, tx, partRange{query, c.Tenant, c.ID, after, limit}); err != nil {
			return err
		}
		blobs = make([]blobRow, len(p.list))
		for i, f := range p.list {
			blobs[i] = f.blob
		}
		pages, err = pagesOf(ctx, tx, c.Tenant, blobs)
		return err
	})
	if err != nil {
		return part{}, err
	}
	// Checked even if there is nothing to decrypt: an empty answer is information too.
	opened, err := s.keys.OpenKey(ctx, c, api.ByUser)
	if err != nil {
		return part{}, err
	}
	defer opened.Zero()
	p.keys = openKeys(opened, pages, blobs)
	return p, nil
}

// openedMessage is a message of a container with the key of its blob.
type openedMessage struct {
	itemWithFirstBlob
	container container.Container
	keys      *keyring
}

// whole is the range of all bytes of a blob.
func (b blobRow) whole() envelope.Range { return envelope.Range{N: b.Size} }

// copyMessage writes a range of a message to w, as copyBlob does, and looks the message
// up again if a roll re-encrypted it in the meantime.
func (s *Contents) copyMessage(ctx context.Context, f openedMessage, at envelope.Range, w io.Writer) error {
	for range maxAttempts {
		key, err := f.keys.key(f.blob)
		if err != nil {
			return err
		}
		written, err := s.copyBlob(ctx, f.blob, key, at, w)
		if !errors.Is(err, errRenewed) {
			return err
		}
		if at = (envelope.Range{Off: at.Off + written, N: at.N - written}); written > 0 && at.N == 0 {
			return nil
		}
		p, err := s.openPart(ctx, f.container, messagesOnly, f.item.ID-1, 1)
		if err != nil {
			return err
		}
		defer p.keys.zero()
		if len(p.list) == 0 || p.list[0].item.ID != f.item.ID {
			return fmt.Errorf("read item %d: %w", f.item.ID, errReplaced)
		}
		f.itemWithFirstBlob, f.keys = p.list[0], p.keys
	}
	return rolledMeanwhile()
}

// copyBlob writes a range of a blob to w and returns how many bytes it wrote.
// A read error names item and blob; an error of w is returned unchanged.
func (s *Contents) copyBlob(ctx context.Context, b blobRow, key *envelope.Key, at envelope.Range, w io.Writer) (written int64, err error) {
	name, ec := blobName(b.Tenant, b.ID), envelope.BlobContext{Tenant: b.Tenant, Blob: b.ID}
	whole := at == b.whole()
	sealedOff, sealedLen := envelope.SealedRange(b.Size, at.Off, at.N)
	if whole { // to the end, whatever its length should be
		sealedOff, sealedLen = 0, -1
	}
	sealed, err := s.blobs.GetRange(ctx, name, sealedOff, sealedLen)
	if fail.Is(err, api.NotFound) {
		return 0, s.missingBlob(ctx, b)
	}
	if err != nil {
		return 0, fmt.Errorf("read item %d: %w", b.Item, err)
	}
	defer sealed.Close()
	// Checked before the first byte is written: after it, a server can only cut the connection.
	if err := checkLength(b, sealed); err != nil {
		return 0, err
	}
	var plain io.Reader
	if whole {
		plain = envelope.NewReader(sealed, key, ec, b.Size)
	} else if plain, err = envelope.NewRangeReader(sealed, key, ec, b.Size, at); err != nil {
		return 0, fmt.Errorf("read item %d: %w", b.Item, err)
	}
	copyTo := copyContent
	if at.N >= readAheadFrom {
		copyTo = copyReadAhead
	}
	written, readErr, writeErr := copyTo(ctx, w, plain)
	if fail.Is(readErr, api.NotFound) { // deleted while it was read
		return written, s.missingBlob(ctx, b)
	}
	if readErr != nil {
		return written, fmt.Errorf("read item %d: %w", b.Item, readErr)
	}
	return written, writeErr
}

// checkLength fails if a blob does not have the length of its content when sealed.
func checkLength(b blobRow, sealed io.Reader) error {
	s, ok := sealed.(blob.Sized)
	if !ok || b.Size < 0 || b.Size > envelope.MaxBlob {
		return nil // the reader detects it
	}
	switch is, want := s.Size(), envelope.SealedSize(b.Size); {
	case is < want:
		return fail.New(api.Damaged, "read item %d: blob %d is truncated: it has %d of its %d bytes", b.Item, b.ID, is, want)
	case is > want:
		return fail.New(api.Damaged, "read item %d: blob %d is %d bytes longer than its %d bytes", b.Item, b.ID, is-want, want)
	}
	return nil
}

// missingBlob returns why a blob is not in the blob store. It looks up the row again,
// since another node may have replaced the item in the meantime.
func (s *Contents) missingBlob(ctx context.Context, b blobRow) error {
	err := s.db.View(ctx, func(tx *store.Tx) error {
		id, _, err := currentBlob(ctx, tx, b)
		switch {
		case err == nil && id == 0:
			return errReplaced
		case err == nil && id != b.ID:
			return errRenewed
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read item %d: %w", b.Item, err)
	}
	return fail.New(api.Damaged, "read item %d: blob %d is missing from the blob store", b.Item, b.ID)
}

// errRenewed means that a roll replaced a blob by another one with the same content
// and that the old one has been deleted.
var errRenewed = errors.New("it was re-encrypted while it was being read")

var errReplaced = fail.New(api.Conflict, "it was replaced while it was being read").WithHint("read it again")

// writtenTime returns the creation time of something new: whole milliseconds, as
// the database stores it.
func (s *Contents) writtenTime() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

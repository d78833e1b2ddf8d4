package content

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// metadataLabel derives the key of an item's metadata from that of its first
// blob, so that a roll which reaches blob keys reaches the metadata.
const metadataLabel = "metadata"

// place is what the seal of the item's metadata is bound to.
func (r itemRow) place() envelope.Place {
	return envelope.Place{Tenant: r.Tenant, Parent: r.Container, Child: r.ID, Version: r.Version}
}

// sealMetadata sets r.Metadata; key is that of the item's first blob.
func (r *itemRow) sealMetadata(key *envelope.Key, metadata any) error {
	plain, err := json.Marshal(metadata)
	if err != nil {
		return fmt.Errorf("seal metadata of item %d: %w", r.ID, err)
	}
	derived := key.Derive(metadataLabel)
	defer derived.Zero()
	r.Metadata = envelope.Seal(derived, envelope.PurposeMetadata, r.place(), plain)
	return nil
}

// openMetadata reads r.Metadata into metadata; key is that of the first blob.
func (r itemRow) openMetadata(key *envelope.Key, metadata any) error {
	derived := key.Derive(metadataLabel)
	defer derived.Zero()
	plain, err := envelope.Open(derived, envelope.PurposeMetadata, r.place(), r.Metadata)
	if err != nil {
		return fmt.Errorf("open item %d: %w", r.ID, err)
	}
	if err := json.Unmarshal(plain, metadata); err != nil {
		// Not the parser's words: they may quote what it read.
		return fail.New(api.Damaged, "open item %d: its metadata are not of a form that is known", r.ID)
	}
	return nil
}

// part is some items of a container with the keys of their first blobs.
type part struct {
	list []first
	keys *keyring
}

// openPart reads and opens up to limit items after an id.
func (s *Contents) openPart(ctx context.Context, c container.Container, query string, after int64, limit int) (part, error) {
	var p part
	var blobs []blobRow
	var pages pageSet
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		if p.list, err = selectPart(ctx, tx, query, c.Tenant, c.ID, after, limit); err != nil {
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
	// Asked even when there is nothing to open: an empty answer is an answer.
	opened, err := s.keys.OpenKey(ctx, c)
	if err != nil {
		return part{}, err
	}
	defer opened.Key.Zero()
	p.keys = openKeys(opened, pages, blobs)
	return p, nil
}

// copyBlob writes bytes [off, off+n) of a blob to w. What fails to read is told
// with item and blob; what w returns is returned as it is.
func (s *Contents) copyBlob(ctx context.Context, b blobRow, key *envelope.Key, off, n int64, w io.Writer) error {
	name, place := blobName(b.Tenant, b.ID), envelope.BlobPlace{Tenant: b.Tenant, Blob: b.ID}
	whole := off == 0 && n == b.Size
	sealedOff, sealedLen := envelope.SealedRange(b.Size, off, n)
	if whole { // to the end, whatever its length should be
		sealedOff, sealedLen = 0, -1
	}
	sealed, err := s.blobs.GetRange(ctx, name, sealedOff, sealedLen)
	if fail.Is(err, api.NotFound) {
		return s.missing(ctx, b)
	}
	if err != nil {
		return fmt.Errorf("read item %d: %w", b.Item, err)
	}
	defer sealed.Close()
	var plain io.Reader
	if whole {
		plain = envelope.NewReader(sealed, key, place, b.Size)
	} else if plain, err = envelope.NewRangeReader(sealed, key, place, b.Size, off, n); err != nil {
		return fmt.Errorf("read item %d: %w", b.Item, err)
	}
	copyTo := copyContent
	if n >= aheadFrom {
		copyTo = copyAhead
	}
	_, readErr, writeErr := copyTo(ctx, w, plain)
	if readErr != nil {
		return fmt.Errorf("read item %d: %w", b.Item, readErr)
	}
	return writeErr
}

// missing says why a blob is not in the blob store: its row is looked up again,
// since another node may have replaced the item meanwhile.
func (s *Contents) missing(ctx context.Context, b blobRow) error {
	err := s.db.View(ctx, func(tx *store.Tx) error {
		page, err := pageOf(ctx, tx, b)
		if err == nil && page == 0 {
			return errReplaced
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read item %d: %w", b.Item, err)
	}
	return fail.New(api.Damaged, "read item %d: blob %d is missing from the blob store", b.Item, b.ID)
}

var errReplaced = fail.New(api.Conflict, "it was replaced while it was read").WithHint("read it again")

// writtenTime is when something new is said to be made: whole milliseconds, as
// the database keeps it.
func (s *Contents) writtenTime() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

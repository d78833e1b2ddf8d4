package content

import (
	"context"
	"encoding/json"
	"slices"

	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

// acceptsBlobs prevents, until tx ends, that the key of opened is replaced and that
// the container's watermark is raised. It fails with store.ErrOutdated if the key has
// been replaced, or if blobs are older than the watermark to which a roll has
// re-encrypted the container; then it returns the watermark too.
func (s *Contents) acceptsBlobs(ctx context.Context, tx *store.Tx, opened container.Opened, blobs []blobRow) (stale int64, err error) {
	accepts, renewed, err := s.keys.AcceptsBlobs(ctx, tx, opened.Tenant, opened.ID, opened.Generation)
	if err != nil {
		return 0, err
	}
	if !accepts {
		return 0, store.ErrOutdated
	}
	for _, b := range blobs {
		if b.ID < renewed {
			return renewed, store.ErrOutdated
		}
	}
	return 0, nil
}

// renewStale re-encrypts the messages of a batch that are older than a watermark.
func (b *batch) renewStale(ctx context.Context, mark int64) error {
	store.PastID(mark)
	s := b.contents
	blobs := s.blobs.Batch()
	defer blobs.Discard()
	var olds []blobRow
	items, rows, keys := slices.Clone(b.items), slices.Clone(b.rows), slices.Clone(b.keys)
	for i, old := range b.rows {
		if old.ID >= mark {
			continue
		}
		row, key, err := s.reencryptBlob(ctx, blobs.Put, old, b.keys[i])
		if err != nil {
			return err
		}
		b.replacedKeys = append(b.replacedKeys, key) // wiped with the batch, also after a failure
		var metadata json.RawMessage
		if err := items[i].openMetadata(b.keys[i], &metadata); err != nil {
			return err
		}
		if err := items[i].sealMetadata(key, metadata); err != nil {
			return err
		}
		clear(metadata)
		olds = append(olds, old)
		rows[i], keys[i] = row, key
	}
	if err := blobs.Commit(ctx); err != nil {
		return err
	}
	b.replacedKeys = append(b.replacedKeys, b.keys...)
	b.items, b.rows, b.keys = items, rows, keys
	s.deleteBlobs(ctx, olds)
	return nil
}

// renewStale re-encrypts the blobs of the file that are older than a watermark.
func (u *PreparedFile) renewStale(ctx context.Context, mark int64) (err error) {
	store.PastID(mark)
	s := u.contents
	pages := make(pageSet)
	for _, row := range u.transitPages.sealed {
		pages[row.ID] = row
	}
	ring := openKeys(u.transitParent(), pages, u.blobs)
	defer ring.zero()
	next := PreparedFile{contents: s, container: u.container, item: u.item, metadata: u.metadata, transit: u.transit, transitPages: newPages{slots: s.slots}}
	defer func() {
		next.first.Zero()
		next.transitPages.zero()
	}()
	var olds, news []blobRow
	for _, old := range u.blobs {
		row := old
		key, err := ring.key(old)
		if err != nil {
			return err
		}
		if old.ID < mark {
			var fresh *envelope.Key
			if row, fresh, err = s.reencryptBlob(ctx, s.blobs.PutIfAbsent, old, key); err != nil {
				s.deleteBlobs(ctx, news)
				return err
			}
			defer fresh.Zero()
			key = fresh
			olds, news = append(olds, old), append(news, row)
		}
		if old.Sequence == 0 {
			next.first = key.Clone()
		}
		if row.Page, err = next.transitPages.add(row.ID, key); err != nil {
			return err
		}
		next.blobs = append(next.blobs, row)
		if next.transitPages.full() {
			if err := next.sealPage(); err != nil {
				return err
			}
		}
	}
	next.metadata.Blobs = digestOf(next.blobs)
	if err := next.item.sealMetadata(next.first, next.metadata); err != nil {
		return err
	}
	if err := next.sealPage(); err != nil {
		return err
	}
	u.item, u.metadata, u.blobs, u.transitPages.sealed = next.item, next.metadata, next.blobs, next.transitPages.sealed
	s.deleteBlobs(ctx, olds)
	return nil
}

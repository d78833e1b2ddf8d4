package content

import (
	"context"
	"encoding/json"
	"slices"

	"keyroll/internal/envelope"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// renewStale re-encrypts the messages of a batch that are older than a watermark.
func (b *batch) renewStale(ctx context.Context, mark int64) error {
	store.PastID(mark)
	s := b.contents
	blobs, err := s.items.NewBatch(ctx)
	if err != nil {
		return err
	}
	defer blobs.Discard()
	from := s.items.InOrder(b.rows)
	defer from.Close()
	var olds []items.Blob
	var renewed []int // their indexes
	list, rows, keys := slices.Clone(b.items), slices.Clone(b.rows), slices.Clone(b.keys)
	for i, old := range b.rows {
		if old.ID >= mark {
			continue
		}
		key, err := blobs.Reencrypt(ctx, from, old, b.keys[i])
		if err != nil {
			return err
		}
		b.replacedKeys = append(b.replacedKeys, key) // wiped with the batch, also after a failure
		var metadata json.RawMessage
		if err := list[i].OpenMetadata(b.keys[i], &metadata); err != nil {
			return err
		}
		if err := list[i].SealMetadata(key, metadata); err != nil {
			return err
		}
		clear(metadata)
		olds, renewed = append(olds, old), append(renewed, i)
		keys[i] = key
	}
	stored, err := blobs.Commit(ctx)
	if err != nil {
		return err
	}
	for i, row := range stored {
		rows[renewed[i]] = row
	}
	b.objects = append(b.objects, blobs.Objects()...)
	b.replacedKeys = append(b.replacedKeys, b.keys...)
	b.items, b.rows, b.keys = list, rows, keys
	s.items.DeleteUnused(ctx, olds, rows)
	return nil
}

// renewStale re-encrypts the blobs of the file that are older than a watermark.
func (u *PreparedFile) renewStale(ctx context.Context, mark int64) (err error) {
	store.PastID(mark)
	s := u.contents
	pages := make(items.PageSet)
	for _, row := range u.transitPages.Sealed {
		pages[row.ID] = row
	}
	ring := items.OpenKeys(u.transitParent(), pages, u.blobs)
	defer ring.Zero()
	next := PreparedFile{contents: s, container: u.container, item: u.item, metadata: u.metadata, transit: u.transit, transitPages: s.items.NewKeyPages()}
	defer func() {
		next.first.Zero()
		next.transitPages.Zero()
	}()
	var olds, news []items.Blob
	for _, old := range u.blobs {
		row := old
		key, err := ring.Key(old)
		if err != nil {
			return err
		}
		if old.ID < mark {
			var fresh *envelope.Key
			if row, fresh, err = s.items.Reencrypt(ctx, old, key); err != nil {
				s.items.DeleteUnused(ctx, news, nil)
				return err
			}
			defer fresh.Zero()
			key = fresh
			olds, news = append(olds, old), append(news, row)
		}
		if old.Sequence == 0 {
			next.first = key.Clone()
		}
		if row.Page, err = next.transitPages.Add(row.ID, key); err != nil {
			return err
		}
		next.blobs = append(next.blobs, row)
		if next.transitPages.Full() {
			if err := next.sealPage(); err != nil {
				return err
			}
		}
	}
	next.metadata.Blobs = items.DigestOf(next.blobs)
	if err := next.item.SealMetadata(next.first, next.metadata); err != nil {
		return err
	}
	if err := next.sealPage(); err != nil {
		return err
	}
	u.item, u.metadata, u.blobs, u.transitPages.Sealed = next.item, next.metadata, next.blobs, next.transitPages.Sealed
	u.shared = slices.DeleteFunc(u.shared, func(p items.Placed) bool { return p.Blob.ID < mark })
	s.items.DeleteUnused(ctx, slices.DeleteFunc(olds, items.Blob.SharesObject), nil)
	return nil
}

package content

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

// staleError says that blobs which are about to get their rows are older than
// what a roll has encrypted their container anew to.
type staleError struct{ mark int64 }

func (e staleError) Error() string {
	return fmt.Sprintf("content: blobs are older than %d, to which a roll has renewed their container", e.mark)
}

// acceptsBlobs holds off, until tx ends, that the key of opened goes and that the
// container is said to have nothing older than it has. It fails with errLost when
// the key has gone, and with a staleError when blobs are too old.
func (s *Contents) acceptsBlobs(ctx context.Context, tx *store.Tx, opened container.Opened, blobs []blobRow) error {
	takes, renewed, err := s.keys.AcceptsBlobs(ctx, tx, opened.Tenant, opened.ID, opened.Generation)
	if err != nil {
		return err
	}
	if !takes {
		return errLost
	}
	for _, b := range blobs {
		if b.ID < renewed {
			return staleError{renewed}
		}
	}
	return nil
}

// renewed handles a transaction that failed because its blobs were too old: renew
// brings them over, and errLost asks for the transaction again. Any other error
// it returns as it is.
func renewed(err error, renew func(mark int64) error) error {
	var stale staleError
	if !errors.As(err, &stale) {
		return err
	}
	store.PastID(stale.mark)
	if err := renew(stale.mark); err != nil {
		return err
	}
	return errLost
}

// renew encrypts anew the messages of a batch that are older than mark.
func (b *batch) renew(ctx context.Context, mark int64) error {
	s := b.contents
	blobs := s.blobs.Batch()
	defer blobs.Discard()
	var olds []blobRow
	items, rows, keys := slices.Clone(b.items), slices.Clone(b.rows), slices.Clone(b.keys)
	for i, old := range b.rows {
		if old.ID >= mark {
			continue
		}
		row, key, err := s.renew(ctx, blobs.Put, old, b.keys[i])
		if err != nil {
			return err
		}
		b.former = append(b.former, key) // wiped with the batch, whatever comes of it
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
	b.former = append(b.former, b.keys...)
	b.items, b.rows, b.keys = items, rows, keys
	s.deleteBlobs(ctx, olds)
	return nil
}

// renew encrypts anew the blobs of a file on its way in that are older than mark.
func (u *upload) renew(ctx context.Context, mark int64) (err error) {
	s := u.contents
	stood := make(pageSet)
	for _, row := range u.pages.sealed {
		stood[row.ID] = row
	}
	ring := openKeys(u.inTransit(), stood, u.blobs)
	defer ring.zero()
	next := upload{contents: s, container: u.container, item: u.item, metadata: u.metadata, transit: u.transit, pages: newPages{slots: s.slots}}
	defer func() {
		next.first.Zero()
		next.pages.zero()
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
			if row, fresh, err = s.renew(ctx, s.blobs.PutIfAbsent, old, key); err != nil {
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
		if row.Page, err = next.pages.add(row.ID, key); err != nil {
			return err
		}
		next.blobs = append(next.blobs, row)
		if next.pages.full() {
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
	u.item, u.metadata, u.blobs, u.pages.sealed = next.item, next.metadata, next.blobs, next.pages.sealed
	s.deleteBlobs(ctx, olds)
	return nil
}

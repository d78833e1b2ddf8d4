package renew

import (
	"context"
	"slices"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// renewedItem is an item before and after its metadata was resealed, and those of
// its blobs that are replaced.
type renewedItem struct {
	was, item items.Row
	blobs     []renewedBlob
}

// plan reads the unit's items again and returns the rows to be written. It leaves out
// items that another transaction changed.
func (u *unit) plan(ctx context.Context, tx *store.Tx) (news []renewedItem, pages *items.KeyPages, err error) {
	pages = u.renewer.items.NewKeyPages()
	defer pages.Zero()
	for rest := u.fresh; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(f renewedBlob) bool { return f.old.Item != rest[0].old.Item })
		if n < 0 {
			n = len(rest)
		}
		if rest[0].old.Sequence > 0 || n > 1 || rest[0].old.Size >= u.renewer.sizes.Blob { // other units may work on the same file
			if err := tx.Lock(ctx, rest[0].old.Item, true); err != nil {
				return nil, pages, err
			}
		}
		rest = rest[n:]
	}
	now, err := items.Between(ctx, tx, u.container, u.fresh[0].old.Item, u.fresh[len(u.fresh)-1].old.Item)
	if err != nil {
		return nil, pages, err
	}
	for rest := u.fresh; len(rest) > 0; {
		id := rest[0].old.Item
		var own []renewedBlob
		for ; len(rest) > 0 && rest[0].old.Item == id; rest = rest[1:] {
			if w := now[id]; w.HasBlob(rest[0].old) {
				own = append(own, rest[0])
			}
		}
		if len(own) == 0 {
			continue
		}
		n, err := u.resealItem(ctx, tx, now[id], own)
		if fail.Is(err, api.Damaged) {
			u.skip(id, err)
			continue
		}
		if err != nil {
			return nil, pages, err
		}
		for i, f := range n.blobs {
			if n.blobs[i].row.Page, err = pages.Add(f.row.ID, f.newKey); err != nil {
				return nil, pages, err
			}
			if pages.Full() {
				if err := pages.Seal(u.opened); err != nil {
					return nil, pages, err
				}
			}
		}
		news = append(news, n)
	}
	err = pages.Seal(u.opened) // before pages is returned
	return news, pages, err
}

// resealItem reseals the metadata of an item: under the key of its first blob, and with the
// ids of the blobs that it has from now on.
func (u *unit) resealItem(ctx context.Context, tx *store.Tx, w *items.WithBlobs, own []renewedBlob) (n renewedItem, err error) {
	n = renewedItem{was: w.Item, item: w.Item, blobs: own}
	n.item.Version++
	if err := items.CheckBlobs(w.Item, w.Blobs); err != nil {
		return n, err
	}
	before, after := own[0].oldKey, own[0].newKey
	if own[0].old.Sequence > 0 {
		pages, err := items.PagesOf(ctx, tx, w.Item.Tenant, w.Blobs[:1])
		if err != nil {
			return n, err
		}
		ring := items.OpenKeys(u.opened, pages, w.Blobs[:1])
		defer ring.Zero()
		if ring.Stale {
			return n, store.ErrOutdated
		}
		if before, err = ring.Key(w.Blobs[0]); err != nil {
			if moved := items.CheckNotMoved(ctx, tx, w.Blobs[0]); moved != nil {
				return n, moved
			}
			return n, err
		}
		after = before
	}
	if w.Item.PathHash == nil {
		var m items.MessageMetadata
		if err := w.Item.OpenMetadata(before, &m); err != nil {
			return n, err
		}
		return n, n.item.SealMetadata(after, m)
	}
	var m items.FileMetadata
	if err := w.Item.OpenMetadata(before, &m); err != nil {
		return n, err
	}
	if !m.Describes(w.Item, w.Blobs) {
		return n, fail.New(api.Damaged, "open item %d: its blobs differ from those that were stored, or are out of order", w.Item.ID)
	}
	blobs := slices.Clone(w.Blobs)
	for _, f := range own {
		blobs[f.old.Sequence].ID = f.row.ID
	}
	m.Blobs = items.DigestOf(blobs)
	return n, n.item.SealMetadata(after, m)
}

// writePlan writes the result of plan: it removes the old keys from their pages, inserts
// the pages of the new ones, and records each old blob as dropped.
func (u *unit) writePlan(ctx context.Context, tx *store.Tx, news []renewedItem, pages *items.KeyPages, olds []items.Blob) error {
	if err := items.RemoveKeys(ctx, tx, u.opened, olds); err != nil {
		return err
	}
	if err := keypage.Put(ctx, tx, pages.Sealed...); err != nil {
		return err
	}
	list := make([]items.Replacement, len(news))
	for i, n := range news {
		list[i] = items.Replacement{Was: n.was, Item: n.item}
		for _, f := range n.blobs {
			list[i].Blobs = append(list[i].Blobs, items.ReplacedBlob{Old: f.old, New: f.row})
		}
	}
	return items.ReplaceBlobs(ctx, tx, u.container.ID, list)
}

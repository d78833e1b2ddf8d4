package content

import (
	"context"

	"keyroll/internal/items"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

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
			list[i].Blobs = append(list[i].Blobs, items.ReplacedBlob{Old: f.old, Row: f.row})
		}
	}
	return items.ReplaceBlobs(ctx, tx, u.container.ID, list)
}

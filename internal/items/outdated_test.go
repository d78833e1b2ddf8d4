package items_test

import (
	"errors"
	"testing"

	"keyroll/internal/content/contenttest"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// On PostgreSQL a roll may replace blobs of an item between two statements of a transaction
// that removes it. That is no damage of an index.
func TestAnItemWhoseBlobWasReplacedSinceItWasReadIsOutdated(t *testing.T) {
	contenttest.Each(t, func(t *testing.T, w *contenttest.Small) {
		w.MustPut(t, "a", "content")
		item := w.StoredBlobs(t)[0].Item
		var blobs []items.Blob
		err := w.DB.View(t.Context(), func(tx *store.Tx) (err error) {
			blobs, err = items.BlobsOf(t.Context(), tx, contenttest.Tenant, item)
			return err
		})
		contenttest.Must(t, err)
		w.MustRenew(t, store.NewID(), w.Site)
		err = w.DB.InTx(t.Context(), func(tx *store.Tx) error {
			return items.Rows{Tenant: contenttest.Tenant, Container: w.Site.ID, Items: []int64{item}, Blobs: blobs}.Remove(t.Context(), tx)
		})
		if !errors.Is(err, store.ErrOutdated) {
			t.Errorf("%v", err)
		}
		if got := w.MustGet(t, "a"); got != "content" {
			t.Errorf("the file reads as %q", got)
		}
	})
}

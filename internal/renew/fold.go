package renew

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/items"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// sparseFactor is the inverse of the highest average fill of the pages that FoldSparse
// merges: an eighth. Merging fuller pages costs more than the next roll would gain.
const sparseFactor = 8

// FoldSparse calls Fold if c's pages of blob keys are nearly empty on average, as
// Renew leaves those of large files, because their units have only a few blobs.
func (s *Renewer) FoldSparse(ctx context.Context, c container.Container) (int, error) {
	var pages, keys int64
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		pages, keys, err = keypage.Count(ctx, tx, c.Tenant, []keypage.Parent{{ID: c.ID, Generation: c.Generation}}, []envelope.Class{envelope.ClassBlob})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("fold key pages of container %d: %w", c.ID, err)
	}
	if pages < 2 || sparseFactor*keys > pages*int64(s.slots) {
		return 0, nil
	}
	return s.Fold(ctx, c)
}

// Fold merges the small key pages of c's blobs, and returns how many pages it
// removed.
func (s *Renewer) Fold(ctx context.Context, c container.Container) (int, error) {
	opened, err := s.keys.OpenKey(ctx, c, api.BySystem)
	if err != nil {
		return 0, err
	}
	defer opened.Zero()
	return keypage.Fold(ctx, s.db, opened.Key, keypage.Foldable{Tenant: c.Tenant, Parent: items.ParentOf(opened), Class: envelope.ClassBlob, Slots: s.slots},
		func(ctx context.Context, tx *store.Tx, blobs []int64, page int64) error {
			return items.Repoint(ctx, tx, c, blobs, page)
		})
}

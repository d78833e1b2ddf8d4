package content

import (
	"context"

	"keyroll/internal/container"
	"keyroll/internal/store"
)

// Abandon deletes a container whose key page is missing or damaged, and refuses any
// other. Its items, and blobs that nothing else references, are left for DeleteLeftoverRows. also
// runs in the same transaction.
func (s *Contents) Abandon(ctx context.Context, c container.Container, also func(tx *store.Tx) error) error {
	return s.keys.Abandon(ctx, c, func(tx *store.Tx) error {
		if err := insertUnfinished(ctx, tx, c.Tenant, c.ID, false); err != nil {
			return err
		}
		return also(tx)
	})
}

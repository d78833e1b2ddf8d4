package content

import (
	"context"

	"keyroll/internal/container"
	"keyroll/internal/store"
)

// Abandon takes away a container whose key page is lost; any other is refused.
// Its items and the blobs that nothing else names are left for Tidy. also runs in
// the same transaction.
func (s *Contents) Abandon(ctx context.Context, c container.Container, also func(tx *store.Tx) error) error {
	return s.keys.Abandon(ctx, c, func(tx *store.Tx) error {
		if err := insertUnfinished(ctx, tx, c.Tenant, c.ID, false); err != nil {
			return err
		}
		return also(tx)
	})
}

package backup

import (
	"context"

	"keyroll/internal/container"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// PreparedAbandon is the deletion of a container whose key page is missing or damaged.
type PreparedAbandon struct {
	*container.PreparedAbandon
	container container.Container
}

// PrepareAbandon prepares the deletion of a container whose key page is missing or
// damaged, and refuses any other.
func (s *Backups) PrepareAbandon(ctx context.Context, c container.Container) (*PreparedAbandon, error) {
	p, err := s.keys.PrepareAbandon(ctx, c)
	return &PreparedAbandon{p, c}, err
}

// Commit deletes the container in tx. Its items, and blobs that nothing else references,
// are left for DeleteLeftoverRows.
func (p *PreparedAbandon) Commit(ctx context.Context, tx *store.Tx) error {
	if err := p.PreparedAbandon.Commit(ctx, tx); err != nil {
		return err
	}
	return items.InsertUnfinished(ctx, tx, p.container.Tenant, p.container.ID, false)
}

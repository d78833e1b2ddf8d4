package container

import (
	"context"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// MarkPurged marks as purged the containers whose keys are in some key pages, and
// returns how many it marked. Marked containers are still listed, but their keys can be
// neither opened nor moved.
func (s *Containers) MarkPurged(ctx context.Context, tx *store.Tx, pages []keypage.Row, at time.Time) (marked int64, err error) {
	args := make([][]any, len(pages))
	for i, page := range pages {
		args[i] = []any{page.Tenant, page.ID, at.UnixMilli()}
	}
	affected, err := tx.ExecMany(ctx, markContainers, args)
	for _, n := range affected {
		marked += n
	}
	return marked, err
}

// locateNotPurged is locate, but fails Gone for a purged container.
func locateNotPurged(ctx context.Context, tx *store.Tx, c Container) (location, error) {
	at, err := locate(ctx, tx, c)
	if err == nil {
		err = checkNotPurged(at.named(c.Name))
	}
	return at, err
}

// checkNotPurged fails Gone for a purged container.
func checkNotPurged(c Container) error {
	if c.Purged.IsZero() {
		return nil
	}
	return fail.New(api.Gone, "%s %q was purged on %s: its content is gone for good", c.Kind, c.Name, c.Purged.UTC().Format("2006-01-02 15:04"))
}

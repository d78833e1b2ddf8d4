package container

import (
	"context"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// MarkPurged marks as purged the containers whose keys are in the first limit
// key pages with an id above after under the given policy keys. It returns the
// last page, 0 if there was none, and how many containers it marked. Marked
// containers are still listed, but their keys can be neither opened nor moved.
func (s *Containers) MarkPurged(ctx context.Context, tx *store.Tx, tenant int64, under []keypage.Parent, classes []envelope.Class, after int64, limit int, at time.Time) (last, marked int64, err error) {
	pages, err := keypage.Under(ctx, tx, tenant, under, classes, after, limit)
	if err != nil {
		return 0, 0, err
	}
	args := make([][]any, len(pages))
	for i, page := range pages {
		last = page.ID
		args[i] = []any{tenant, page.ID, at.UnixMilli()}
	}
	affected, err := tx.ExecMany(ctx, markContainers, args)
	for _, n := range affected {
		marked += n
	}
	return last, marked, err
}

// locateNotPurged is locate, but fails Gone for a purged container.
func locateNotPurged(ctx context.Context, tx *store.Tx, c Container) (location, error) {
	at, err := locate(ctx, tx, c)
	if err == nil && !at.Purged.IsZero() {
		return location{}, fail.New(api.Gone, "%s %q was purged on %s: its content is gone for good", at.Kind, c.Name, at.Purged.UTC().Format("2006-01-02 15:04"))
	}
	return at, err
}

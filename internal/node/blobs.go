package node

import (
	"context"
	"time"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// bindBlobs checks that a blob store is the one that the database was first used with,
// or a copy of it. With another one all content would be missing, and new content
// would be stored in the wrong place.
func (n *Node) bindBlobs(ctx context.Context, identity, location string) error {
	return n.DB.InTx(ctx, func(tx *store.Tx) error {
		stored, err := firstSetting(ctx, tx, "blob-store", identity)
		if err != nil {
			return err
		}
		if stored != identity {
			return fail.New(api.Conflict, "the blobs of this database are in another blob store than %s", location).
				WithHint("name that blob store with --blobs or KEYROLL_BLOBS; if %s is a copy without its object %s, create that object with the content %s", location, blob.MarkName, stored)
		}
		return nil
	})
}

// collectCheckEvery is how often a node checks whether the daily collection of blobs is due.
const collectCheckEvery = 10 * time.Minute

// collectDaily collects blobs once a day until ctx is done; only one of several nodes
// does it at a time.
func (n *Node) collectDaily(ctx context.Context) {
	for {
		if _, err := n.leases.Hold(ctx, "collect blobs", n.collect); err != nil && ctx.Err() == nil {
			n.logger.WarnContext(ctx, "the daily collection of blobs failed and will be retried", "after", collectCheckEvery, "error", err)
		}
		select {
		case <-time.After(collectCheckEvery):
		case <-ctx.Done():
			return
		}
	}
}

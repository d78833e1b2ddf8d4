package node

import (
	"context"
	"time"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// tieBlobs checks that the blobs of the database are those of a blob store, which
// is the first one that it was used with, or a copy. A start that names another
// would find all content missing, and put new content where nobody looks for it.
func (n *Node) tieBlobs(ctx context.Context, identity, location string) error {
	return n.DB.InTx(ctx, func(tx *store.Tx) error {
		stored, err := firstSetting(ctx, tx, "blob-store", identity)
		if err != nil {
			return err
		}
		if stored != identity {
			return fail.New(api.Conflict, "the blobs of this database stand in another blob store than %s", location).
				WithHint("name that with --blobs or KEYROLL_BLOBS; where it was copied without its object %s, let that hold %s", blob.MarkName, stored)
		}
		return nil
	})
}

// collectLook is how often a node looks whether the daily collection of blobs is due.
const collectLook = 10 * time.Minute

// collectDaily collects blobs once a day, until ctx is done; of several nodes one
// does.
func (n *Node) collectDaily(ctx context.Context) {
	for {
		if _, err := n.leases.Hold(ctx, "collect blobs", n.collect); err != nil && ctx.Err() == nil {
			n.logger.WarnContext(ctx, "the daily collection of blobs failed; that is tried again", "after", collectLook, "error", err)
		}
		select {
		case <-time.After(collectLook):
		case <-ctx.Done():
			return
		}
	}
}

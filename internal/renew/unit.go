package renew

import (
	"context"
	"errors"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// unit is a number of blobs of a container that are re-encrypted together.
type unit struct {
	*renewing
	opened   container.Opened
	fresh    []renewedBlob // in the order of items and sequences
	objects  []items.Object
	replaced []items.Blob // by the transaction of commit
}

// renewedBlob is a blob and its replacement.
type renewedBlob struct {
	old, row       items.Blob
	oldKey, newKey *envelope.Key
}

func (u *unit) zero() {
	u.opened.Zero()
	for _, f := range u.fresh {
		f.oldKey.Zero()
		f.newKey.Zero()
	}
}

func (r *renewing) renewUnit(ctx context.Context, stale []items.Blob, pages items.PageSet) (err error) {
	u := &unit{renewing: r}
	if u.opened, err = r.renewer.keys.OpenKey(ctx, r.container, api.ByUser); err != nil {
		return err
	}
	defer u.zero()
	ring := items.OpenKeys(u.opened, pages, stale)
	defer ring.Zero()
	if ring.Stale {
		return nil // left for another call
	}
	if err := u.store(ctx, stale, ring); err != nil || len(u.fresh) == 0 {
		return err
	}
	fault.Point("renew.blobs-durable")
	return u.commit(ctx)
}

// store re-encrypts the blobs and makes them durable under new names.
func (u *unit) store(ctx context.Context, stale []items.Blob, ring *items.Keyring) error {
	blobs, err := u.renewer.items.NewBatch(ctx)
	if err != nil {
		return err
	}
	defer blobs.Discard()
	from := u.renewer.items.InOrder(stale)
	defer from.Close()
	for _, old := range stale {
		if u.isSkipped(old.Item) {
			continue
		}
		key, err := ring.Key(old)
		var fresh *envelope.Key
		if err == nil {
			fresh, err = blobs.Reencrypt(ctx, from, old, key)
		}
		switch {
		case errors.Is(err, items.ErrRenewed), errors.Is(err, items.ErrReplaced):
			continue // by another request or node: there is nothing to do
		case fail.Is(err, api.Damaged):
			u.skip(old.Item, err)
			continue
		case err != nil:
			return err
		}
		u.fresh = append(u.fresh, renewedBlob{old: old, oldKey: key.Clone(), newKey: fresh})
	}
	if len(u.fresh) == 0 {
		return nil
	}
	stored, err := blobs.Commit(ctx)
	if err != nil {
		return err
	}
	for i, row := range stored {
		u.fresh[i].row = row
	}
	u.objects = blobs.Objects()
	return nil
}

// commit replaces the old blobs by the new ones. The old ones are deleted by the
// next collection.
func (u *unit) commit(ctx context.Context) error {
	err := u.renewer.db.Commit(ctx, u, func(tx *store.Tx) error { return u.swap(ctx, tx) })
	if errors.Is(err, store.ErrOutdated) {
		return nil // left for another call
	}
	return err
}

// Prepare has nothing to do again: swap reads the rows that may have changed.
func (u *unit) Prepare(context.Context) error { return nil }

// Close deletes the new blobs that are not used.
func (u *unit) Close(ctx context.Context, outcome store.Outcome) {
	switch outcome {
	case store.NotCommitted:
		u.deleteUnused(ctx, nil)
	case store.Committed:
		u.deleteUnused(ctx, u.replaced)
		fault.Point("renew.after-commit")
	}
}

// deleteUnused deletes the objects in which there is no new blob whose old one was
// replaced.
func (u *unit) deleteUnused(ctx context.Context, replaced []items.Blob) {
	done := map[int64]bool{}
	for _, b := range replaced {
		done[b.ID] = true
	}
	var unused, used []items.Blob
	for _, f := range u.fresh {
		if done[f.old.ID] {
			used = append(used, f.row)
		} else {
			unused = append(unused, f.row)
		}
	}
	u.renewer.items.DeleteUnused(ctx, unused, used)
}

// swap writes in tx which blobs are replaced.
func (u *unit) swap(ctx context.Context, tx *store.Tx) error {
	u.replaced = nil
	if err := u.LockRunning(tx); err != nil {
		return err
	}
	if _, err := u.renewer.items.AcceptsBlobs(ctx, tx, u.opened, nil); err != nil {
		return err
	}
	news, pages, err := u.plan(ctx, tx)
	if err != nil || len(news) == 0 {
		return err
	}
	var fresh []items.Blob
	for _, n := range news {
		for _, f := range n.blobs {
			u.replaced, fresh = append(u.replaced, f.old), append(fresh, f.row)
		}
	}
	if err := items.CheckGCFence(ctx, tx, fresh); err != nil {
		return err
	}
	if err := items.InsertObjects(ctx, tx, u.objects, fresh); err != nil {
		return err
	}
	if err := u.writePlan(ctx, tx, news, pages, u.replaced); err != nil {
		return err
	}
	if err := u.Done(tx, sizeOf(u.replaced)); err != nil {
		return err
	}
	fault.Point("renew.before-commit")
	return nil
}

package content

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// A unit of Renew is committed in one transaction; until then its content is stored twice.
const (
	unitBytes = 32 << 20
	unitBlobs = 256
)

// Renewal holds the parameters and callbacks of Renew.
type Renewal struct {
	// Watermark is an id: blobs that are older get new keys.
	Watermark int64
	// LockRunning is called first in each transaction and fails if the work must not go on.
	LockRunning func(tx *store.Tx) error
	// Throttle waits until so many bytes may be re-encrypted.
	Throttle func(ctx context.Context, bytes int64) error
	// Done is called in each transaction with the number of bytes re-encrypted.
	Done func(tx *store.Tx, bytes int64) error
	// Skip is called for each item that cannot be re-encrypted, with the reason; from
	// any goroutine.
	Skip func(item int64, err error)
}

// Renew re-encrypts, under new keys, all blobs of c that are older than the watermark;
// FinishRenewed then records that there are none left. A blob is kept until its
// replacement is committed. Items that cannot be decrypted are skipped. Blobs that
// others changed in the meantime are left for another call.
func (s *Contents) Renew(ctx context.Context, c container.Container, r Renewal) error {
	store.PastID(r.Watermark)
	run := renewing{Renewal: r, contents: s, container: c, skipped: map[int64]bool{}}
	if err := run.runUnits(ctx); err != nil {
		return fmt.Errorf("re-encrypt container %d: %w", c.ID, err)
	}
	return nil
}

// FinishRenewed records for those of some containers, in id order, that have no blob
// older than mark that this is so, and returns how many they are. hold is called
// first in the transaction, and done last.
func (s *Contents) FinishRenewed(ctx context.Context, containers []container.Container, mark int64, hold func(tx *store.Tx) error, done func(tx *store.Tx, containers int64) error) (n int64, err error) {
	fault.Point("renew.before-finish")
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		n = 0
		if err := hold(tx); err != nil {
			return err
		}
		for _, c := range containers {
			if err := tx.Lock(ctx, c.ID, true); err != nil { // waits for items.AcceptsBlobs
				return err
			}
			if stale, err := items.HasOlder(ctx, tx, c, mark); err != nil {
				return err
			} else if stale {
				continue
			}
			set, err := s.keys.SetRenewed(ctx, tx, c.Tenant, c.ID, mark)
			if err != nil {
				return err
			}
			if set {
				n++
			}
		}
		return done(tx, n)
	})
	if err == nil {
		fault.Point("renew.after-finish")
	}
	return n, err
}

type renewing struct {
	Renewal
	contents  *Contents
	container container.Container

	mu      sync.Mutex
	skipped map[int64]bool // items
}

func (r *renewing) skip(item int64, err error) {
	r.mu.Lock()
	known := r.skipped[item]
	r.skipped[item] = true
	r.mu.Unlock()
	if !known {
		r.Skip(item, err)
	}
}

func (r *renewing) isSkipped(item int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.skipped[item]
}

// runUnits processes several units at once: while one waits for its disk, another one
// encrypts.
func (r *renewing) runUnits(ctx context.Context) error {
	g, working := errgroup.WithContext(ctx)
	var failed error
	for after := (items.Blob{Sequence: -1}); working.Err() == nil; {
		var stale []items.Blob
		var pages items.PageSet // read in the same snapshot: another node may renew the same blobs
		failed = r.contents.db.View(working, func(tx *store.Tx) (err error) {
			if stale, err = items.OlderThan(working, tx, r.container, items.OlderRange{Mark: r.Watermark, After: after, Limit: unitBlobs}); err != nil {
				return err
			}
			stale = firstUnit(stale)
			pages, err = items.PagesOf(working, tx, r.container.Tenant, stale)
			return err
		})
		if failed != nil || len(stale) == 0 {
			break
		}
		after = stale[len(stale)-1]
		if failed = r.Throttle(working, sizeOf(stale)); failed != nil {
			break
		}
		select {
		case r.contents.units <- struct{}{}:
		case <-working.Done():
			continue
		}
		g.Go(func() error {
			defer func() { <-r.contents.units }()
			return r.renewUnit(working, stale, pages)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if failed == nil {
		failed = ctx.Err()
	}
	return failed
}

// firstUnit returns as many of the first blobs as one unit may have, at least one.
func firstUnit(blobs []items.Blob) []items.Blob {
	var size int64
	for i, b := range blobs {
		if size += b.Size; size > unitBytes && i > 0 {
			return blobs[:i]
		}
	}
	return blobs
}

func sizeOf(blobs []items.Blob) (size int64) {
	for _, b := range blobs {
		size += b.Size
	}
	return size
}

// unit is a number of blobs of a container that are re-encrypted together.
type unit struct {
	*renewing
	opened   container.Opened
	fresh    []renewedBlob // in the order of items and sequences
	replaced []items.Blob  // by the transaction of commit
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
	if u.opened, err = r.contents.keys.OpenKey(ctx, r.container, api.ByUser); err != nil {
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
	blobs := u.contents.items.NewBatch()
	defer blobs.Discard()
	for _, old := range stale {
		if u.isSkipped(old.Item) {
			continue
		}
		key, err := ring.Key(old)
		var row items.Blob
		var fresh *envelope.Key
		if err == nil {
			row, fresh, err = blobs.Reencrypt(ctx, old, key)
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
		u.fresh = append(u.fresh, renewedBlob{old, row, key.Clone(), fresh})
	}
	if len(u.fresh) == 0 {
		return nil
	}
	return blobs.Commit(ctx)
}

// commit replaces the old blobs by the new ones. The old ones are deleted by the
// next collection.
func (u *unit) commit(ctx context.Context) error {
	err := u.contents.db.Commit(ctx, u, func(tx *store.Tx) error { return u.swap(ctx, tx) })
	if errors.Is(err, store.ErrOutdated) {
		return nil // left for another call
	}
	return err
}

// backup.Prepare has nothing to do again: swap reads the rows that may have changed.
func (u *unit) Prepare(context.Context) error { return nil }

// backup.Close deletes the new blobs that are not used.
func (u *unit) Close(ctx context.Context, outcome store.Outcome) {
	switch outcome {
	case store.NotCommitted:
		u.contents.items.DeleteUnused(ctx, u.unused(nil))
	case store.Committed:
		u.contents.items.DeleteUnused(ctx, u.unused(u.replaced))
		fault.Point("renew.after-commit")
	}
}

// unused returns the new blobs whose old ones are not among those that were replaced.
func (u *unit) unused(replaced []items.Blob) (unused []items.Blob) {
	done := map[int64]bool{}
	for _, b := range replaced {
		done[b.ID] = true
	}
	for _, f := range u.fresh {
		if !done[f.old.ID] {
			unused = append(unused, f.row)
		}
	}
	return unused
}

// swap writes in tx which blobs are replaced.
func (u *unit) swap(ctx context.Context, tx *store.Tx) error {
	u.replaced = nil
	if err := u.LockRunning(tx); err != nil {
		return err
	}
	if _, err := u.contents.items.AcceptsBlobs(ctx, tx, u.opened, nil); err != nil {
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
	if err := u.writePlan(ctx, tx, news, pages, u.replaced); err != nil {
		return err
	}
	if err := u.Done(tx, sizeOf(u.replaced)); err != nil {
		return err
	}
	fault.Point("renew.before-commit")
	return nil
}

// renewedItem is an item before and after its metadata was resealed, and those of
// its blobs that are replaced.
type renewedItem struct {
	was, item items.Row
	blobs     []renewedBlob
}

// plan reads the unit's items again and returns the rows to be written. It leaves out
// items that another transaction changed.
func (u *unit) plan(ctx context.Context, tx *store.Tx) (news []renewedItem, pages *items.KeyPages, err error) {
	pages = u.contents.items.NewKeyPages()
	defer pages.Zero()
	for rest := u.fresh; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(f renewedBlob) bool { return f.old.Item != rest[0].old.Item })
		if n < 0 {
			n = len(rest)
		}
		if rest[0].old.Sequence > 0 || n > 1 || rest[0].old.Size >= u.contents.sizes.Blob { // other units may work on the same file
			if err := tx.Lock(ctx, rest[0].old.Item, true); err != nil {
				return nil, pages, err
			}
		}
		rest = rest[n:]
	}
	now, err := items.Between(ctx, tx, u.container, u.fresh[0].old.Item, u.fresh[len(u.fresh)-1].old.Item)
	if err != nil {
		return nil, pages, err
	}
	for rest := u.fresh; len(rest) > 0; {
		id := rest[0].old.Item
		var own []renewedBlob
		for ; len(rest) > 0 && rest[0].old.Item == id; rest = rest[1:] {
			if w := now[id]; w.HasBlob(rest[0].old) {
				own = append(own, rest[0])
			}
		}
		if len(own) == 0 {
			continue
		}
		n, err := u.resealItem(ctx, tx, now[id], own)
		if fail.Is(err, api.Damaged) {
			u.skip(id, err)
			continue
		}
		if err != nil {
			return nil, pages, err
		}
		for i, f := range n.blobs {
			if n.blobs[i].row.Page, err = pages.Add(f.row.ID, f.newKey); err != nil {
				return nil, pages, err
			}
			if pages.Full() {
				if err := pages.Seal(u.opened); err != nil {
					return nil, pages, err
				}
			}
		}
		news = append(news, n)
	}
	err = pages.Seal(u.opened) // before pages is returned
	return news, pages, err
}

// resealItem reseals the metadata of an item: under the key of its first blob, and with the
// ids of the blobs that it has from now on.
func (u *unit) resealItem(ctx context.Context, tx *store.Tx, w *items.WithBlobs, own []renewedBlob) (n renewedItem, err error) {
	n = renewedItem{was: w.Item, item: w.Item, blobs: own}
	n.item.Version++
	if err := items.CheckBlobs(w.Item, w.Blobs); err != nil {
		return n, err
	}
	before, after := own[0].oldKey, own[0].newKey
	if own[0].old.Sequence > 0 {
		pages, err := items.PagesOf(ctx, tx, w.Item.Tenant, w.Blobs[:1])
		if err != nil {
			return n, err
		}
		ring := items.OpenKeys(u.opened, pages, w.Blobs[:1])
		defer ring.Zero()
		if ring.Stale {
			return n, store.ErrOutdated
		}
		if before, err = ring.Key(w.Blobs[0]); err != nil {
			if moved := items.CheckNotMoved(ctx, tx, w.Blobs[0]); moved != nil {
				return n, moved
			}
			return n, err
		}
		after = before
	}
	if w.Item.PathHash == nil {
		var m items.MessageMetadata
		if err := w.Item.OpenMetadata(before, &m); err != nil {
			return n, err
		}
		return n, n.item.SealMetadata(after, m)
	}
	var m items.FileMetadata
	if err := w.Item.OpenMetadata(before, &m); err != nil {
		return n, err
	}
	if m.Size != w.Item.Size || string(m.Blobs) != string(items.DigestOf(w.Blobs)) {
		return n, fail.New(api.Damaged, "open item %d: its blobs differ from those that were stored, or are out of order", w.Item.ID)
	}
	blobs := slices.Clone(w.Blobs)
	for _, f := range own {
		blobs[f.old.Sequence].ID = f.row.ID
	}
	m.Blobs = items.DigestOf(blobs)
	return n, n.item.SealMetadata(after, m)
}

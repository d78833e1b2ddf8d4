package content

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/store"
)

// A unit of Renew commits at once; until it has, its content is stored twice.
const (
	unitBytes = 32 << 20
	unitBlobs = 256
)

// Renewal says how Renew goes about its work.
type Renewal struct {
	// Mark is an id: blobs that are older get new keys.
	Mark int64
	// Hold begins each transaction and says whether the work is still wanted.
	Hold func(tx *store.Tx) error
	// Slow waits until so many bytes may be read and written.
	Slow func(ctx context.Context, bytes int64) error
	// Done is called in each transaction with what it brought over, and in the
	// last one, finished, after which the container has nothing older.
	Done func(tx *store.Tx, blobs, bytes int64, finished bool) error
}

// Renewed is what Renew did.
type Renewed struct {
	Blobs   int64
	Bytes   int64
	Skipped map[int64]error // by item: why it could not be read
}

// Renew encrypts anew, under new keys, all blobs of c that are older than a
// mark, and then notes that there are none. A blob stays until the one that
// takes its place is committed. Items that do not open are skipped. What others
// changed meanwhile is left for another call, which the missing note asks for.
func (s *Contents) Renew(ctx context.Context, c container.Container, r Renewal) (Renewed, error) {
	store.PastID(r.Mark)
	run := renewing{contents: s, container: c, Renewal: r, out: Renewed{Skipped: map[int64]error{}}, one: make(chan struct{}, 1)}
	err := run.all(ctx)
	if err == nil && len(run.out.Skipped) == 0 {
		err = run.finish(ctx)
	}
	if err != nil {
		return run.out, fmt.Errorf("encrypt container %d anew: %w", c.ID, err)
	}
	return run.out, nil
}

type renewing struct {
	Renewal
	contents  *Contents
	container container.Container
	one       chan struct{} // guards out
	out       Renewed
}

// all works on units side by side: while one waits for its disk, another one
// encrypts.
func (r *renewing) all(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for after := (blobRow{Sequence: -1}); ctx.Err() == nil; {
		var stale []blobRow
		err := r.contents.db.View(ctx, func(tx *store.Tx) (err error) {
			stale, err = staleAfter(ctx, tx, r.container, r.Mark, after, unitBlobs)
			return err
		})
		if err != nil || len(stale) == 0 {
			return errors.Join(g.Wait(), err)
		}
		stale = firstUnit(stale)
		after = stale[len(stale)-1]
		var size int64
		for _, b := range stale {
			size += b.Size
		}
		if err := r.Slow(ctx, size); err != nil {
			return errors.Join(g.Wait(), err)
		}
		select {
		case r.contents.units <- struct{}{}:
		case <-ctx.Done():
			return errors.Join(g.Wait(), ctx.Err())
		}
		g.Go(func() error {
			defer func() { <-r.contents.units }()
			return r.unit(ctx, stale)
		})
	}
	return g.Wait()
}

// firstUnit returns as many of blobs as one unit takes, at least one.
func firstUnit(blobs []blobRow) []blobRow {
	var size int64
	for i, b := range blobs {
		if size += b.Size; size > unitBytes && i > 0 {
			return blobs[:i]
		}
	}
	return blobs
}

// unit is some blobs of a container on their way.
type unit struct {
	*renewing
	opened container.Opened
	fresh  map[place]renewedBlob
}

// place is where a blob stands in its item.
type place struct{ item, sequence int64 }

// renewedBlob is the blob that takes another one's place.
type renewedBlob struct {
	old, row       blobRow
	oldKey, newKey *envelope.Key
}

func (u *unit) zero() {
	u.opened.Zero()
	for _, f := range u.fresh {
		f.oldKey.Zero()
		f.newKey.Zero()
	}
}

func (r *renewing) unit(ctx context.Context, stale []blobRow) error {
	s := r.contents
	var pages pageSet
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		pages, err = pagesOf(ctx, tx, r.container.Tenant, stale)
		return err
	})
	if err != nil {
		return err
	}
	u := &unit{renewing: r, fresh: map[place]renewedBlob{}}
	if u.opened, err = s.keys.OpenKey(ctx, r.container); err != nil {
		return err
	}
	defer u.zero()
	ring := openKeys(u.opened, pages, stale)
	defer ring.zero()
	if ring.stale {
		return nil // for another call
	}
	if err := u.store(ctx, stale, ring); err != nil || len(u.fresh) == 0 {
		return err
	}
	fault.Point("renew.blobs-durable")
	return u.commit(ctx)
}

// store encrypts the blobs anew and makes them durable under new names.
func (u *unit) store(ctx context.Context, stale []blobRow, ring *keyring) error {
	blobs := u.contents.blobs.Batch()
	defer blobs.Discard()
	skipped := map[int64]bool{}
	for _, old := range stale {
		if skipped[old.Item] {
			continue
		}
		key, err := ring.key(old)
		var row blobRow
		var fresh *envelope.Key
		if err == nil {
			row, fresh, err = u.contents.renew(ctx, blobs, old, key)
		}
		switch {
		case errors.Is(err, errRenewed), errors.Is(err, errReplaced):
			continue // by somebody else: there is nothing to do
		case fail.Is(err, api.Damaged):
			skipped[old.Item] = true
			u.skip(old.Item, err)
			continue
		case err != nil:
			return err
		}
		u.fresh[place{old.Item, old.Sequence}] = renewedBlob{old, row, key.Clone(), fresh}
	}
	if len(u.fresh) == 0 {
		return nil
	}
	return blobs.Commit(ctx)
}

func (r *renewing) skip(item int64, err error) {
	r.one <- struct{}{}
	defer func() { <-r.one }()
	r.out.Skipped[item] = err
}

// renew stores the content of a blob as a new blob under a new key.
func (s *Contents) renew(ctx context.Context, blobs blob.Batch, old blobRow, key *envelope.Key) (row blobRow, fresh *envelope.Key, err error) {
	sealed, err := s.blobs.GetRange(ctx, blobName(old.Tenant, old.ID), 0, -1)
	if fail.Is(err, api.NotFound) {
		return row, nil, s.missing(ctx, old)
	}
	if err != nil {
		return row, nil, fmt.Errorf("read item %d: %w", old.Item, err)
	}
	defer sealed.Close()
	row = old
	row.ID = store.NewID()
	fresh = envelope.NewKey()
	plain := envelope.NewReader(sealed, key, envelope.BlobPlace{Tenant: old.Tenant, Blob: old.ID}, old.Size)
	again := newSealing(plain, fresh, envelope.BlobPlace{Tenant: row.Tenant, Blob: row.ID})
	defer again.release()
	if _, err := blobs.Put(ctx, blobName(row.Tenant, row.ID), again); err != nil {
		fresh.Zero()
		return row, nil, fmt.Errorf("encrypt item %d anew: %w", old.Item, err)
	}
	return row, fresh, nil
}

// commit puts the new blobs in the places of the old ones, which go after it.
func (u *unit) commit(ctx context.Context) error {
	var olds []blobRow
	var committing bool
	err := errLost
	for try := 0; try < tries && errors.Is(err, errLost); try++ {
		olds, committing, err = u.swap(ctx)
	}
	if errors.Is(err, errLost) {
		err = nil // for another call
		olds = nil
	}
	if err != nil && committing { // it may have happened
		return err
	}
	gone := map[place]bool{}
	for _, b := range olds {
		gone[place{b.Item, b.Sequence}] = true
	}
	var unused []blobRow
	for at, f := range u.fresh {
		if err != nil || !gone[at] {
			unused = append(unused, f.row)
		}
	}
	u.contents.deleteBlobs(ctx, unused)
	if err != nil {
		return err
	}
	fault.Point("renew.after-commit")
	u.contents.replaced(ctx, u.container.Tenant, olds)
	return nil
}

// swap is the transaction. It returns the blobs that were replaced, and whether
// it came as far as the commit.
func (u *unit) swap(ctx context.Context) (olds []blobRow, committing bool, err error) {
	s, c := u.contents, u.container
	var size int64
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		olds, size, committing = nil, 0, false
		if err := u.Hold(tx); err != nil {
			return err
		}
		if err := s.takesBlobs(ctx, tx, u.opened, nil); err != nil {
			return err
		}
		news, pages, err := u.plan(ctx, tx)
		if err != nil || len(news) == 0 {
			return err
		}
		for _, n := range news {
			for _, f := range n.blobs {
				olds = append(olds, f.old)
				size += f.old.Size
			}
		}
		if err := u.write(ctx, tx, news, pages, olds); err != nil {
			return err
		}
		if err := u.Done(tx, int64(len(olds)), size, false); err != nil {
			return err
		}
		fault.Point("renew.before-commit")
		committing = true
		return nil
	})
	if err == nil {
		u.one <- struct{}{}
		u.out.Blobs += int64(len(olds))
		u.out.Bytes += size
		<-u.one
	}
	return olds, committing, err
}

// renewedItem is an item with its metadata sealed anew, and those of its blobs
// that are replaced.
type renewedItem struct {
	was, item itemRow
	blobs     []renewedBlob
}

// plan reads the unit's items as they stand now and makes what is to be written
// of them. An item that somebody else changed has no part in it.
func (u *unit) plan(ctx context.Context, tx *store.Tx) (news []renewedItem, pages newPages, err error) {
	ids := slices.Sorted(maps.Keys(u.byItem()))
	for _, id := range ids {
		if u.byItem()[id][0].old.Sequence > 0 || len(u.byItem()[id]) > 1 { // other units may work on the same file
			if err := tx.Lock(ctx, id, true); err != nil {
				return nil, pages, err
			}
		}
	}
	now, err := between(ctx, tx, u.container, ids[0], ids[len(ids)-1])
	if err != nil {
		return nil, pages, err
	}
	pages = newPages{slots: u.contents.slots}
	defer pages.zero()
	for _, id := range ids {
		w := now[id]
		if w == nil {
			continue
		}
		n, err := u.item(ctx, tx, *w, u.byItem()[id], &pages)
		if fail.Is(err, api.Damaged) {
			u.skip(id, err)
			continue
		}
		if err != nil {
			return nil, pages, err
		}
		if len(n.blobs) > 0 {
			news = append(news, n)
		}
	}
	return news, pages, pages.seal(u.opened)
}

// Package renew gives what a container has new keys: it re-encrypts its blobs under new
// keys, re-wraps their key pages under a new key of the container, and merges key pages.
//
// It does so while content is read and stored. A blob is replaced, with its key and the
// metadata of its item, in one transaction, and is kept until then; a page is replaced by
// compare-and-swap. What another transaction changed is left for another call, and what
// cannot be decrypted is reported and left as it is. The package decides neither which
// containers nor when; depth does. Start reading at Renewer.Renew and Renewer.Rewrap.
package renew

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// Keys opens the keys of containers. *container.Containers is one.
type Keys interface {
	// OpenKey returns a copy of the container's key, which the caller zeroes. It
	// fails when the policy that protects the container does not allow its use.
	OpenKey(ctx context.Context, c container.Container, who api.Initiator) (container.Opened, error)
	// SetRenewed records that no blob of a container is older than mark.
	SetRenewed(ctx context.Context, tx *store.Tx, tenant, id, mark int64) (bool, error)
}

// Renewer gives containers new keys. Its methods may be called from many goroutines.
type Renewer struct {
	db    *store.DB
	items *items.Store
	keys  Keys
	sizes items.Sizes
	slots int
	units chan struct{} // one element for each unit of Renew under way
}

// New returns a renewer of the given items. New key pages have slots slots.
func New(db *store.DB, stored *items.Store, keys Keys, slots int) *Renewer {
	return &Renewer{db: db, items: stored, keys: keys, sizes: stored.Sizes(), slots: slots, units: make(chan struct{}, 2*runtime.GOMAXPROCS(0))}
}

// A unit of Renew is committed in one transaction; until then its content is stored twice.
const (
	unitBytes = 32 << 20
	unitBlobs = 512
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
// Finish then records that there are none left. A blob is kept until its
// replacement is committed. Items that cannot be decrypted are skipped. Blobs that
// others changed in the meantime are left for another call.
func (s *Renewer) Renew(ctx context.Context, c container.Container, r Renewal) error {
	store.PastID(r.Watermark)
	run := renewing{Renewal: r, renewer: s, container: c, skipped: map[int64]bool{}}
	if err := run.runUnits(ctx); err != nil {
		return fmt.Errorf("re-encrypt container %d: %w", c.ID, err)
	}
	return nil
}

// Finish records for those of some containers, in id order, that have no blob
// older than mark that this is so, and returns how many they are. hold is called
// first in the transaction, and done last.
func (s *Renewer) Finish(ctx context.Context, containers []container.Container, mark int64, hold func(tx *store.Tx) error, done func(tx *store.Tx, containers int64) error) (n int64, err error) {
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
	renewer   *Renewer
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
		failed = r.renewer.db.View(working, func(tx *store.Tx) (err error) {
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
		case r.renewer.units <- struct{}{}:
		case <-working.Done():
			continue
		}
		g.Go(func() error {
			defer func() { <-r.renewer.units }()
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

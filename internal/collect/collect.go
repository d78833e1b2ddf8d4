// Package collect deletes blobs that no row references from the blob store: those of
// deleted and replaced content, and those that a process left when it died.
//
// What it deletes are objects: files of the blob store that hold one or many blobs. A blob
// is deleted only if no row references it or ever will, however many nodes store
// content at the same time and whatever their clocks show; Collection explains why. That
// no row references it is confirmed without the indexes that said so. The package reads no
// content and no key. Start reading at Collection.
package collect

import (
	"context"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// Collector makes collections of blobs.
type Collector struct {
	db    *store.DB
	items *items.Store
	now   func() time.Time
}

// New returns a collector of the blobs of the given items.
func New(db *store.DB, stored *items.Store, now func() time.Time) *Collector {
	return &Collector{db: db, items: stored, now: now}
}

// Collection deletes blobs that no row references from the blob store: the blobs
// of deleted and replaced content (see unreferenced), and orphans, which no row
// references or ever will. Orphans are left by a process that died after it put
// objects and before it inserted their rows, or while it deleted them. Before an object
// is deleted, the indexes that list it as unreferenced are confirmed by the rows
// (see delete).
//
// A row references an object if it is of a blob that is in it. The table object has a row
// of each object of several blobs: a blob that was dropped and that no row references is
// dead in it, and an object below the fence of which all is dead is deleted. Above it, an
// object of files that were put at the same time may yet get the row of another one.
//
// The decision that an object is an orphan does not depend on correct clocks:
//
//  1. A collection first stores a fence, an id, in the database. From then on no
//     transaction inserts the row of a new blob in an object whose id is below the fence
//     (items.CheckGCFence), and transactions that were about to do so have ended: they hold
//     a lock shared, while the fence is set under the same lock, exclusively.
//  2. So an object below the fence that a later snapshot finds in none of the
//     tables blob, dropped and object never had a row, or has none any more. Rows that
//     reference an existing blob are only ever copied from other rows (unreferenced
//     explains why blob or dropped has a row of a blob for as long as a copy may
//     still copy it). Hence no row will reference the object again, and it may be
//     deleted at any later time.
//
// What may run at the same time as a collection:
//   - An upload or an import whose blobs are put but have no rows yet: its blobs are
//     above the fence and stay; or below it, and then inserting the rows fails and
//     the caller gets an error. Grace is thus the longest time that an upload may take.
//   - A roll that re-encrypts content: its new blobs are like those of an upload; if
//     inserting their rows fails, the roll makes new blobs.
//   - A backup, a restore or another copy: it references the blobs that the copied
//     rows reference; those stay in blob or dropped until the copy has ended.
//   - A file that is replaced or removed, a container that is deleted: its rows
//     move from blob to dropped in one transaction; a snapshot sees one of the two.
//   - The deletion of a dropped blob: the object is deleted before its row in dropped or
//     in object.
//   - A reader of a replaced file: its blobs stay in dropped until the read has ended.
//   - Another collection: a fence is never lowered, and deleting a blob twice is harmless.
//
// Blobs of tenants that are not in the database are ignored: another database may
// use the same store. None of this holds for an older copy of the database that
// uses the store of the newer one.
type Collection struct {
	collector  *Collector
	fence      int64
	dryRun     bool
	begun      bool // the fence is set
	checked    bool // the tables were compared with their indexes
	candidates []candidate
	atOnce     int
	Collected
}

// Collected counts the objects that a collection has seen so far.
type Collected struct {
	Blobs, Bytes         int64 // objects in the store, sealed
	Orphans, OrphanBytes int64 // of them
	Removed              int64 // deleted objects, including those of deleted and replaced content
}

// NewCollection returns a collection of orphans older than grace, which begins with
// Begin. A dry run sets no fence and deletes nothing: blobs that it counts may still get
// rows; it begins without Begin. The caller calls Tenant for each tenant and then End.
func (s *Collector) NewCollection(grace time.Duration, dryRun bool) (*Collection, error) {
	if grace < 0 {
		return nil, fail.New(api.InvalidArgument, "collect blobs: grace %v is negative", grace)
	}
	return &Collection{collector: s, fence: store.IDFrom(s.now().Add(-grace)), dryRun: dryRun, atOnce: candidatesAtOnce}, nil
}

// Begin sets the fence of the collection in tx: rows of older blobs can no longer be
// inserted.
func (c *Collection) Begin(ctx context.Context, tx *store.Tx) error {
	if err := items.RaiseGCFence(ctx, tx, c.fence); err != nil {
		return fmt.Errorf("collect blobs: %w", err)
	}
	c.begun = true
	fault.Point("collect.before-commit")
	return nil
}

// collectAtOnce is how many objects are looked up at a time.
const collectAtOnce = 1000

// listed is an object in a listing of the blob store.
type listed struct{ id, size int64 }

// End deletes the remaining candidates.
func (c *Collection) End(ctx context.Context) error {
	if err := c.delete(ctx); err != nil {
		return fmt.Errorf("collect blobs: %w", err)
	}
	return nil
}

// Tenant examines the objects of a tenant. Unreferenced blobs are deleted by End, or
// earlier if there are many. progress, if not nil, is called with the counts of the
// whole collection.
func (c *Collection) Tenant(ctx context.Context, tenant int64, progress func(Collected)) error {
	var part []listed
	take := func() error {
		err := c.decide(ctx, tenant, part)
		part = part[:0]
		if err == nil && progress != nil {
			progress(c.Collected)
		}
		return err
	}
	var err error
	switch {
	case c.dryRun:
	case !c.begun:
		err = fail.New(api.Internal, "the collection has no fence")
	default:
		if err = c.emptied(ctx, tenant); err == nil {
			err = c.dropped(ctx, tenant)
		}
	}
	if err == nil {
		err = c.list(ctx, tenant, &part, take)
	}
	if err != nil {
		return fmt.Errorf("collect blobs: %w", err)
	}
	return nil
}

// list lists the objects that the store has of a tenant and calls take for each part.
func (c *Collection) list(ctx context.Context, tenant int64, part *[]listed, take func() error) error {
	err := c.collector.items.ListStored(ctx, tenant, func(id, size int64) error {
		if *part = append(*part, listed{id, size}); len(*part) < collectAtOnce {
			return nil
		}
		return take()
	})
	if err == nil {
		err = take()
	}
	return err
}

// decide counts some objects and adds the orphans among them to the candidates.
func (c *Collection) decide(ctx context.Context, tenant int64, part []listed) error {
	if len(part) == 0 {
		return nil
	}
	s := c.collector
	ids := make([]int64, len(part))
	for i, o := range part {
		ids[i] = o.id
	}
	var referenced []int64
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		referenced, err = items.ReferencedObjects(ctx, tx, tenant, ids)
		return err
	})
	if err != nil {
		return err
	}
	named := make(map[int64]bool)
	for _, id := range referenced {
		named[id] = true
	}
	for _, b := range part {
		c.Blobs++
		c.Bytes += b.size
		if b.id < c.fence && !named[b.id] {
			c.Orphans++
			c.OrphanBytes += b.size
			if c.dryRun {
				continue
			}
			if err := c.add(ctx, candidate{kind: orphan, blob: items.Blob{Tenant: tenant, ID: b.id}}); err != nil {
				return err
			}
		}
	}
	return nil
}

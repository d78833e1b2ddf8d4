package content

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/store"
)

// Collection deletes blobs that no row references from the blob store: the blobs
// of deleted and replaced content (see unreferenced), and orphans, which no row
// references or ever will. Orphans are left by a process that died after it put
// blobs and before it inserted their rows, or while it deleted blobs. Before a blob
// is deleted, the indexes that list it as unreferenced are confirmed by the rows
// (see delete).
//
// The decision that a blob is an orphan does not depend on correct clocks:
//
//  1. A collection first stores a fence, an id, in the database. From then on no
//     transaction inserts the row of a new blob whose id is below the fence
//     (checkGCFence), and transactions that were about to do so have ended: they hold
//     fenceLock shared, while the fence is set under the exclusive lock.
//  2. So a blob below the fence that a later snapshot finds in neither of the
//     tables blob and dropped never had a row, or has none any more. Rows that
//     reference an existing blob are only ever copied from other rows (unreferenced
//     explains why blob or dropped has a row of a blob for as long as a copy may
//     still copy it). Hence no row will reference the blob again, and it may be
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
//   - The deletion of a dropped blob: the blob is deleted before its row in dropped.
//   - A reader of a replaced file: its blobs stay in dropped until the read has ended.
//   - Another collection: a fence is never lowered, and deleting a blob twice is harmless.
//
// Blobs of tenants that are not in the database are ignored: another database may
// use the same store. None of this holds for an older copy of the database that
// uses the store of the newer one.
type Collection struct {
	contents   *Contents
	fence      int64
	dryRun     bool
	begun      bool // the fence is set
	checked    bool // the tables were compared with their indexes
	candidates []candidate
	atOnce     int
	Collected
}

// Collected counts the blobs that a collection has seen so far.
type Collected struct {
	Blobs, Bytes         int64 // in the store, sealed
	Orphans, OrphanBytes int64 // of them
	Removed              int64 // deleted blobs, including those of deleted and replaced content
}

// fenceLock is the lock that transactions hold while they insert rows of new blobs. Its
// number cannot clash with locks of ids, which are far larger.
const fenceLock = 2

// fenceSetting is the setting with the fence of the last collection.
const fenceSetting = "blobs-collected-below"

// NewCollection returns a collection of orphans older than grace, which begins with
// Begin. A dry run sets no fence and deletes nothing: blobs that it counts may still get
// rows; it begins without Begin. The caller calls Tenant for each tenant and then End.
func (s *Contents) NewCollection(grace time.Duration, dryRun bool) (*Collection, error) {
	if grace < 0 {
		return nil, fail.New(api.InvalidArgument, "collect blobs: grace %v is negative", grace)
	}
	return &Collection{contents: s, fence: store.IDFrom(s.now().Add(-grace)), dryRun: dryRun, atOnce: candidatesAtOnce}, nil
}

// Begin sets the fence of the collection in tx: rows of older blobs can no longer be
// inserted.
func (c *Collection) Begin(ctx context.Context, tx *store.Tx) error {
	if err := tx.Lock(ctx, fenceLock, true); err != nil {
		return fmt.Errorf("collect blobs: %w", err)
	}
	last, err := lastFence(ctx, tx)
	if err != nil {
		return fmt.Errorf("collect blobs: %w", err)
	}
	if c.fence > last {
		_, err := tx.Exec(ctx, `INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2`, fenceSetting, strconv.FormatInt(c.fence, 10))
		if err != nil {
			return fmt.Errorf("collect blobs: %w", err)
		}
	}
	c.begun = true
	fault.Point("collect.before-commit")
	return nil
}

// lastFence returns the fence of the last collection.
func lastFence(ctx context.Context, tx *store.Tx) (line int64, err error) {
	if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(CAST(value AS BIGINT)), 0) FROM setting WHERE name = ?1`, fenceSetting).Scan(&line); err != nil {
		return 0, fmt.Errorf("read which blobs were collected: %w", err)
	}
	return line, nil
}

// checkGCFence must be called in the transaction that inserts rows of new blobs. It
// fails if a collection may have deleted one of them, and blocks the next collection
// until the transaction has ended.
func checkGCFence(ctx context.Context, tx *store.Tx, blobs []blobRow) error {
	if err := tx.Lock(ctx, fenceLock, false); err != nil {
		return err
	}
	line, err := lastFence(ctx, tx)
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if b.ID < line {
			return fail.New(api.Conflict, "it took longer than the grace period of a blob collection, which may have deleted its blobs; nothing was stored").
				WithHint("send it again; the operator can use a longer grace period and should check that the clocks of all nodes agree")
		}
	}
	return nil
}

// collectAtOnce is how many blobs are looked up at a time, and deletesAtOnce how
// many are deleted concurrently.
const (
	collectAtOnce = 1000
	deletesAtOnce = 16
)

// listedBlob is a blob in a listing of the blob store.
type listedBlob struct{ id, size int64 }

// End deletes the remaining candidates.
func (c *Collection) End(ctx context.Context) error {
	if err := c.delete(ctx); err != nil {
		return fmt.Errorf("collect blobs: %w", err)
	}
	return nil
}

// Tenant examines the blobs of a tenant. Unreferenced blobs are deleted by End, or
// earlier if there are many. progress, if not nil, is called with the counts of the
// whole collection.
func (c *Collection) Tenant(ctx context.Context, tenant int64, progress func(Collected)) error {
	var part []listedBlob
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
		err = c.dropped(ctx, tenant)
	}
	if err == nil {
		err = c.list(ctx, tenant, &part, take)
	}
	if err != nil {
		return fmt.Errorf("collect blobs: %w", err)
	}
	return nil
}

// list lists the blobs that the store has of a tenant and calls take for each part.
func (c *Collection) list(ctx context.Context, tenant int64, part *[]listedBlob, take func() error) error {
	err := c.contents.blobs.List(ctx, tenantPrefix(tenant), func(name string, size int64) error {
		id, err := strconv.ParseInt(path.Base(name), 16, 64)
		if err != nil || blobName(tenant, id) != name {
			return nil // not written by keyroll
		}
		if *part = append(*part, listedBlob{id, size}); len(*part) < collectAtOnce {
			return nil
		}
		return take()
	})
	if err == nil {
		err = take()
	}
	return err
}

// decide counts some blobs and adds the orphans among them to the candidates.
func (c *Collection) decide(ctx context.Context, tenant int64, part []listedBlob) error {
	if len(part) == 0 {
		return nil
	}
	s := c.contents
	first, last := part[0].id, part[0].id
	for _, b := range part {
		first, last = min(first, b.id), max(last, b.id)
	}
	var referenced []int64
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		referenced, err = referencedBetween(ctx, tx, tenant, first, last)
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
			if err := c.add(ctx, candidate{tenant: tenant, id: b.id}); err != nil {
				return err
			}
		}
	}
	return nil
}

// deleteAll deletes blobs of a tenant. If the store does not respond, it gives up
// after one attempt per goroutine.
func (s *Contents) deleteAll(ctx context.Context, tenant int64, ids []int64) error {
	var under sync.WaitGroup
	next, errs := make(chan int64), make([]error, min(deletesAtOnce, len(ids)))
	for i := range errs {
		under.Go(func() {
			for id := range next {
				if errs[i] == nil {
					errs[i] = s.blobs.Delete(ctx, blobName(tenant, id))
				}
			}
		})
	}
	for _, id := range ids {
		next <- id
	}
	close(next)
	under.Wait()
	return errors.Join(errs...)
}

func idsOf(blobs []blobRow) []int64 {
	ids := make([]int64, len(blobs))
	for i, b := range blobs {
		ids[i] = b.ID
	}
	return ids
}

// referencedBetween returns the ids in a range that rows reference.
func referencedBetween(ctx context.Context, tx *store.Tx, tenant, first, last int64) ([]int64, error) {
	ids, err := tx.IDs(ctx, `SELECT id FROM blob WHERE id BETWEEN ?2 AND ?3 AND tenant = ?1
		UNION SELECT blob FROM dropped WHERE blob BETWEEN ?2 AND ?3 AND tenant = ?1`, tenant, first, last)
	if err != nil {
		return nil, fmt.Errorf("read which blobs are named: %w", err)
	}
	return ids, nil
}

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

// A collection deletes from the blob store what nothing names: the blobs of
// deleted and replaced content (unnamed says why), and orphans, which no row names
// and none ever will. Those are left by a process that died between putting blobs
// and naming them, or while it deleted others. What the indexes of the database
// say of a blob is confirmed by its rows before it goes (delete).
//
// That a blob is an orphan is decided without a clock being right:
//
//  1. A collection first draws a line, an id, in the database. From then on no
//     transaction names a new blob whose id is below the line (checkGCFence), and the
//     ones that were about to have ended: they hold the lock naming shared, the
//     line is drawn under it alone.
//  2. So a blob below the line that one later snapshot finds in neither of the
//     tables blob and dropped was never named, or is named no more. Rows that
//     name a blob are only ever copied from others (unnamed says why one of blob or
//     dropped names a blob for as long as anybody may still copy its row). Hence
//     nobody will name it again, and it may be deleted at any time after.
//
// What may happen beside a collection:
//   - An upload or an import whose blobs are put and not named yet: its blobs are
//     above the line and stay; or below, and naming them fails, which its caller
//     is told. Grace is thus the longest time that an upload may take.
//   - A roll that encrypts content again: its new blobs are as those of an upload;
//     where naming them fails the roll makes new ones.
//   - A backup, a restore or another copy under way: it names blobs that the rows
//     which it copies name; those stay in blob or dropped until it has ended.
//   - A file that is replaced or removed, a container that is taken away: its rows
//     move from blob to dropped in one transaction; a snapshot sees one of them.
//   - A dropped blob that goes: it is deleted before its row in dropped is.
//   - A reader of a replaced file: its blobs stay in dropped until it has ended.
//   - Another collection: a line is never drawn back, and a deletion twice is one.
//
// Blobs of tenants that the database does not have are not looked at: another
// database may use the same store. Nothing of this holds for a copy of the
// database from before that works on the store of the newer one.
type Collection struct {
	contents   *Contents
	line       int64
	dryRun     bool
	checked    bool // the tables were compared with their indexes
	candidates []candidate
	atOnce     int
	Collected
}

// Collected is what a collection has come across so far.
type Collected struct {
	Blobs, Bytes         int64 // in the store, sealed
	Orphans, OrphanBytes int64 // of them
	Removed              int64 // that were deleted, those of deleted and replaced content too
}

// naming is the lock of who names new blobs. Locks of ids are far larger.
const naming = 2

// lineSetting is where the line of the last collection stands.
const lineSetting = "blobs-collected-below"

// Collect begins a collection, of orphans of those older than grace. A dry run
// draws no line and deletes nothing: what it counts may yet be named. End is called
// after the last tenant. also, if
// not nil, runs in the transaction that draws the line.
func (s *Contents) Collect(ctx context.Context, grace time.Duration, dryRun bool, also func(tx *store.Tx) error) (*Collection, error) {
	if grace < 0 {
		return nil, fail.New(api.InvalidArgument, "collect blobs: grace %v is negative", grace)
	}
	c := &Collection{contents: s, line: store.IDFrom(s.now().Add(-grace)), dryRun: dryRun, atOnce: candidatesAtOnce}
	if dryRun {
		return c, nil
	}
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.Lock(ctx, naming, true); err != nil {
			return err
		}
		last, err := lastLine(ctx, tx)
		if err != nil {
			return err
		}
		if c.line > last {
			_, err := tx.Exec(ctx, `INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2`, lineSetting, strconv.FormatInt(c.line, 10))
			if err != nil {
				return err
			}
		}
		if also != nil {
			if err := also(tx); err != nil {
				return err
			}
		}
		fault.Point("collect.before-commit")
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("collect blobs: %w", err)
	}
	fault.Point("collect.after-commit")
	return c, nil
}

// lastLine returns the line of the last collection.
func lastLine(ctx context.Context, tx *store.Tx) (line int64, err error) {
	if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(CAST(value AS BIGINT)), 0) FROM setting WHERE name = ?1`, lineSetting).Scan(&line); err != nil {
		return 0, fmt.Errorf("read which blobs were collected: %w", err)
	}
	return line, nil
}

// checkGCFence has to be called in the transaction that inserts rows of new blobs: it
// fails where a collection may have taken one of them, and holds up the next
// collection until the transaction has ended.
func checkGCFence(ctx context.Context, tx *store.Tx, blobs []blobRow) error {
	if err := tx.Lock(ctx, naming, false); err != nil {
		return err
	}
	line, err := lastLine(ctx, tx)
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
// many are deleted side by side.
const (
	collectAtOnce = 1000
	deletesAtOnce = 16
)

// listed is a blob as the store lists it.
type listed struct{ id, size int64 }

// End deletes what is left to delete.
func (c *Collection) End(ctx context.Context) error {
	if err := c.delete(ctx); err != nil {
		return fmt.Errorf("collect blobs: %w", err)
	}
	return nil
}

// Tenant looks at the blobs of a tenant; what of them goes is deleted by End, or
// before if there is much of it. progress, if not nil, is told what the whole
// collection has come across.
func (c *Collection) Tenant(ctx context.Context, tenant int64, progress func(Collected)) error {
	var part []listed
	take := func() error {
		err := c.part(ctx, tenant, part)
		part = part[:0]
		if err == nil && progress != nil {
			progress(c.Collected)
		}
		return err
	}
	var err error
	if !c.dryRun {
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

// list hands the blobs that the store has of a tenant to take, in parts.
func (c *Collection) list(ctx context.Context, tenant int64, part *[]listed, take func() error) error {
	err := c.contents.blobs.List(ctx, tenantPrefix(tenant), func(name string, size int64) error {
		id, err := strconv.ParseInt(path.Base(name), 16, 64)
		if err != nil || blobName(tenant, id) != name {
			return nil // not keyroll's
		}
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

// part decides about some blobs.
func (c *Collection) part(ctx context.Context, tenant int64, part []listed) error {
	if len(part) == 0 {
		return nil
	}
	s := c.contents
	first, last := part[0].id, part[0].id
	for _, b := range part {
		first, last = min(first, b.id), max(last, b.id)
	}
	named := make(map[int64]bool)
	err := s.db.View(ctx, func(tx *store.Tx) error { return namedBetween(ctx, tx, tenant, first, last, named) })
	if err != nil {
		return err
	}
	for _, b := range part {
		c.Blobs++
		c.Bytes += b.size
		if b.id < c.line && !named[b.id] {
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

// deleteAll deletes blobs of a tenant. Where the store does not answer it gives
// up after one try for each of those side by side.
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

// namedBetween adds the ids of blobs within a range that rows name, in one
// snapshot.
func namedBetween(ctx context.Context, tx *store.Tx, tenant, first, last int64, named map[int64]bool) error {
	ids, err := tx.IDs(ctx, `SELECT id FROM blob WHERE id BETWEEN ?2 AND ?3 AND tenant = ?1
		UNION SELECT blob FROM dropped WHERE blob BETWEEN ?2 AND ?3 AND tenant = ?1`, tenant, first, last)
	if err != nil {
		return fmt.Errorf("read which blobs are named: %w", err)
	}
	for _, id := range ids {
		named[id] = true
	}
	return nil
}

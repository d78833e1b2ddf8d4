// Package compact makes objects in the blob store fewer and fuller: it copies what is left
// of objects of which more than half is dead, and small objects, into new objects.
//
// Blobs are copied sealed as they are, and all rows of a blob get its new place in one
// transaction, while content is read and stored. What another transaction changed is left
// as it is, and so is a blob that the store does not have as its row says. The package
// deletes nothing that a row has referred to: the next collection deletes the old objects.
// No purge or deletion waits for it. It opens no key. Start reading at Compactor.Run.
package compact

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"keyroll/internal/items"
	"keyroll/internal/store"
)

// Limits say which objects are small, and how large a new object becomes.
type Limits struct {
	Small   int64 // bytes: smaller objects and blobs are combined
	AtLeast int   // that many of a tenant
	Blobs   int   // of a new object, which is written in one transaction; an object that has half as many is not small
}

// DefaultLimits are those of production.
var DefaultLimits = Limits{Small: 1 << 20, AtLeast: 64, Blobs: 4096}

// Compactor compacts objects. Its methods may be called from many goroutines.
type Compactor struct {
	db     *store.DB
	items  *items.Store
	limits Limits
}

// New returns a compactor of the objects of the given items.
func New(db *store.DB, stored *items.Store, limits Limits) *Compactor {
	return &Compactor{db: db, items: stored, limits: limits}
}

// Compacted counts what a run has done.
type Compacted struct {
	Blobs, Bytes int64 // moved, sealed
	Objects      int64 // that they are in now
}

// Run compacts the objects of all tenants. While a node is live that does not read objects
// of several blobs, it does nothing.
func (c *Compactor) Run(ctx context.Context) (Compacted, error) {
	r := &run{compactor: c, begun: store.NewID(), groups: map[int64]*group{}}
	may, err := c.items.MayShareObjects(ctx)
	if err == nil && may {
		err = r.objects(ctx)
	}
	if err == nil && may {
		err = r.alone(ctx)
	}
	if err != nil {
		return r.done, fmt.Errorf("compact objects: %w", err)
	}
	return r.done, nil
}

// run is one call of Run.
type run struct {
	compactor *Compactor
	begun     int64            // an id: later objects are left as they are
	groups    map[int64]*group // by tenant
	checked   bool             // the tables were compared with their indexes
	done      Compacted
}

// group is the blobs of a tenant that are to be written next.
type group struct {
	blobs []items.Blob
	bytes int64
}

// Objects are looked at in parts of at most partObjects, with about partBlobs blobs, whose
// rows are found by one scan of the table.
const (
	partObjects = 10_000
	partBlobs   = 250_000
)

// objects moves what is left of sparse objects, and the blobs of small objects of tenants
// that have many of them.
func (r *run) objects(ctx context.Context) error {
	for after := (items.Object{}); ; {
		ids, last, err := r.candidates(ctx, after)
		if err != nil || last == after {
			return err
		}
		after = last
		var blobs []items.Blob
		if err := r.compactor.items.InObjects(ctx, ids, func(b items.Blob) { blobs = append(blobs, b) }); err != nil {
			return err
		}
		slices.SortFunc(blobs, func(a, b items.Blob) int { return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.ID, b.ID)) })
		if err := r.addAll(ctx, blobs); err != nil {
			return err
		}
		if err := r.writeAll(ctx, 1); err != nil {
			return err
		}
	}
}

// candidates returns the objects after one of them whose blobs are to be moved, and the last
// object that it looked at.
func (r *run) candidates(ctx context.Context, after items.Object) (ids []int64, last items.Object, err error) {
	l := r.compactor.limits
	small := items.Small{Bytes: l.Small, Blobs: int64(l.Blobs / 2)}
	var list []items.Object
	var tenants []int64
	err = r.compactor.db.View(ctx, func(tx *store.Tx) (err error) {
		if list, err = items.SparseAfter(ctx, tx, after, small, partObjects); err != nil {
			return err
		}
		tenants, err = items.TenantsWithSmall(ctx, tx, small, int64(l.AtLeast))
		return err
	})
	last = after
	var blobs int64
	for _, o := range list {
		if blobs >= partBlobs {
			break
		}
		last = items.Object{ID: o.ID, Tenant: o.Tenant}
		if o.ID < r.begun && (o.Sparse() || slices.Contains(tenants, o.Tenant)) {
			ids, blobs = append(ids, o.ID), blobs+o.Blobs
		}
	}
	return ids, last, err
}

// alone moves small blobs that have objects of their own, of tenants that have many of them.
func (r *run) alone(ctx context.Context) error {
	for after, more := int64(0), true; more; {
		var blobs []items.Blob
		var last int64
		err := r.compactor.db.View(ctx, func(tx *store.Tx) (err error) {
			blobs, last, more, err = items.AloneAfter(ctx, tx, after, r.compactor.limits.Small)
			return err
		})
		if err != nil {
			return err
		}
		after = last
		if err := r.addAll(ctx, blobs); err != nil {
			return err
		}
	}
	return r.writeAll(ctx, r.compactor.limits.AtLeast)
}

// addAll adds blobs, in the order of their ids, to the groups of their tenants, and writes
// the groups that are full.
func (r *run) addAll(ctx context.Context, blobs []items.Blob) error {
	for i, b := range blobs {
		if i > 0 && blobs[i-1].ID == b.ID && blobs[i-1].Tenant == b.Tenant {
			continue // a copy of the item names the same blob
		}
		g := r.groups[b.Tenant]
		if g == nil {
			g = &group{}
			r.groups[b.Tenant] = g
		}
		g.blobs, g.bytes = append(g.blobs, b), g.bytes+b.SealedSize()
		if len(g.blobs) >= r.compactor.limits.Blobs || g.bytes >= r.compactor.items.Sizes().Object {
			if err := r.write(ctx, b.Tenant, g.blobs); err != nil {
				return err
			}
			delete(r.groups, b.Tenant)
		}
	}
	return nil
}

// writeAll writes the groups that have at least n blobs, and forgets the others.
func (r *run) writeAll(ctx context.Context, n int) error {
	for tenant, g := range r.groups {
		if len(g.blobs) >= n {
			if err := r.write(ctx, tenant, g.blobs); err != nil {
				return err
			}
		}
		delete(r.groups, tenant)
	}
	return nil
}

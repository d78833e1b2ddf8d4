package collect

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// deletion is what the candidates of a collection amount to.
type deletion struct {
	dropped map[int64][]items.Blob // by tenant
	emptied []items.Object         // with a row, and nothing but dead blobs and candidates
	objects map[object]kind        // to be deleted: the emptied ones, those of single blobs, and orphans
	item    map[object]int64       // the item that dropped a candidate, by the blob's id
}

func (c *Collection) newDeletion(ctx context.Context) (*deletion, error) {
	d := &deletion{dropped: map[int64][]items.Blob{}, objects: map[object]kind{}, item: map[object]int64{}}
	shared := map[int64]*inObjects{} // by tenant
	for _, one := range c.candidates {
		b := one.blob
		if one.kind == dropped {
			d.dropped[b.Tenant] = append(d.dropped[b.Tenant], b)
			d.item[object{b.Tenant, b.ID}] = b.Item
		}
		if one.kind == orphan || one.kind == dropped && b.Object == 0 {
			d.objects[objectOf(b)] = one.kind
			continue
		}
		if shared[b.Tenant] == nil {
			shared[b.Tenant] = &inObjects{tenant: b.Tenant, fence: c.fence, objects: map[int64]bool{}}
		}
		shared[b.Tenant].add(one)
	}
	for _, in := range shared {
		err := c.collector.db.View(ctx, func(tx *store.Tx) error { return in.readEmptied(ctx, tx) })
		if err != nil {
			return nil, err
		}
		for _, o := range in.emptied {
			d.emptied = append(d.emptied, o)
			d.objects[object{o.Tenant, o.ID}] = emptied
		}
	}
	return d, nil
}

// inObjects are the candidates of a tenant that are objects of several blobs, or blobs in
// such objects.
type inObjects struct {
	tenant  int64
	fence   int64
	objects map[int64]bool
	blobs   []items.Blob
	emptied []items.Object // those of which all is dead once the blobs are
}

func (in *inObjects) add(one candidate) {
	in.objects[one.blob.ObjectID()] = true
	if one.kind == dropped {
		in.blobs = append(in.blobs, one.blob)
	}
}

// readEmptied reads the objects in one snapshot with the rows of the dropped blobs: what
// another collection has deleted in the meantime already counts as dead.
func (in *inObjects) readEmptied(ctx context.Context, tx *store.Tx) error {
	in.emptied = nil
	freed := map[int64]int64{} // bytes, by object
	for part := range slices.Chunk(in.blobs, collectAtOnce) {
		byID := func(a, b items.Blob) int { return cmp.Compare(a.ID, b.ID) }
		still, err := items.StillDropped(ctx, tx, in.tenant, slices.MinFunc(part, byID).ID, slices.MaxFunc(part, byID).ID)
		if err != nil {
			return err
		}
		for _, b := range part {
			if _, is := still[items.DroppedBy{Blob: b.ID, Item: b.Item}]; is {
				freed[b.Object] += b.SealedSize()
			}
		}
	}
	for part := range slices.Chunk(slices.Sorted(maps.Keys(in.objects)), collectAtOnce) {
		rows, err := items.ObjectsByID(ctx, tx, in.tenant, part)
		if err != nil {
			return err
		}
		for _, o := range rows {
			// Above the fence, one of its blobs may not have its row yet (items.InsertPlaced).
			if o.ID < in.fence && o.Dead+freed[o.ID] >= o.Size {
				in.emptied = append(in.emptied, o)
			}
		}
	}
	return nil
}

func (d *deletion) objectsByTenant() map[int64][]int64 {
	byTenant := map[int64][]int64{}
	for o := range d.objects {
		byTenant[o.tenant] = append(byTenant[o.tenant], o.id)
	}
	return byTenant
}

// confirm fails Damaged if the tables themselves have rows that reference what is to be
// deleted.
func (d *deletion) confirm(ctx context.Context, db *store.DB) error {
	ids := map[int64]bool{}
	for b := range d.item {
		ids[b.id] = true
	}
	for o := range d.objects {
		ids[o.id] = true
	}
	list := slices.Sorted(maps.Keys(ids))
	var found references
	// In this order: content that is deleted in the meantime moves from blob to dropped.
	for _, one := range []struct {
		query store.ScanQuery
		look  func(row store.Scanner) error
	}{
		{store.ScanQuery{Table: "blob", Columns: "tenant, id, item, object", Column: "id", Or: "object"}, d.blobRow(&found, "blob")},
		{store.ScanQuery{Table: "dropped", Columns: "tenant, blob, item, object", Column: "blob", Or: "object"}, d.blobRow(&found, "dropped")},
		{store.ScanQuery{Table: "object", Columns: "tenant, id", Column: "id"}, d.objectRow(&found)},
	} {
		one.query.IDs = list
		if err := db.Scan(ctx, one.query, one.look); err != nil {
			return err
		}
	}
	return found.err()
}

// blobRow returns a function that looks at a row of table blob or dropped.
func (d *deletion) blobRow(found *references, table string) func(row store.Scanner) error {
	return func(row store.Scanner) error {
		var b items.Blob
		if err := row.Scan(&b.Tenant, &b.ID, &b.Item, &b.Object); err != nil {
			return err
		}
		by, isCandidate := d.item[object{b.Tenant, b.ID}]
		if table == "dropped" && isCandidate && by == b.Item {
			return nil
		}
		if _, deleted := d.objects[objectOf(b)]; isCandidate || deleted {
			found.add("blob", object{b.Tenant, b.ID}, table)
		}
		return nil
	}
}

// objectRow returns a function that looks at a row of table object.
func (d *deletion) objectRow(found *references) func(row store.Scanner) error {
	return func(row store.Scanner) error {
		var o object
		if err := row.Scan(&o.tenant, &o.id); err != nil {
			return err
		}
		if as, deleted := d.objects[o]; deleted && as != emptied {
			found.add("object", o, "object")
		}
		return nil
	}
}

// references are blobs and objects that rows reference although an index says otherwise.
type references struct {
	first string
	all   map[object]bool
}

func (r *references) add(what string, o object, table string) {
	if r.all == nil {
		r.all = map[object]bool{}
		r.first = fmt.Sprintf("%s %d of tenant %d, which table %s has", what, o.id, o.tenant, table)
	}
	r.all[o] = true
}

func (r *references) err() error {
	if len(r.all) == 0 {
		return nil
	}
	cause := &Contradiction{}
	for o := range r.all {
		if !slices.Contains(cause.Tenants, o.tenant) {
			cause.Tenants = append(cause.Tenants, o.tenant)
		}
	}
	return fail.New(api.Damaged, "nothing is deleted: an index of the database omits %d blobs that rows reference; the first is %s", len(r.all), r.first).
		WithHint("docs/damage.md says how to rebuild an index from the rows").Because(cause)
}

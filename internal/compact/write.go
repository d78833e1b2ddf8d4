package compact

import (
	"context"
	"slices"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// checkedTables are the tables whose indexes find all rows of a blob.
var checkedTables = []string{"blob", "dropped", "object", "unfinished"}

// write copies blobs of a tenant into new objects and changes their rows. It leaves them
// for another run if a copy is under way in the tenant.
func (r *run) write(ctx context.Context, tenant int64, blobs []items.Blob) error {
	c := r.compactor
	if !r.checked { // a row that an index omits would keep the old place
		if err := c.db.CheckTables(ctx, checkedTables...); err != nil {
			return err
		}
		r.checked = true
	}
	var busy bool
	err := c.db.View(ctx, func(tx *store.Tx) (err error) {
		busy, err = items.AnyCopying(ctx, tx, tenant)
		return err
	})
	if err != nil || busy {
		return err
	}
	m := &moving{items: c.items, tenant: tenant}
	if err := m.store(ctx, blobs); err != nil || len(m.moves) == 0 {
		return err
	}
	fault.Point("compact.objects-durable")
	err = c.db.Commit(ctx, m, func(tx *store.Tx) (err error) {
		if m.moved, err = items.MoveBlobs(ctx, tx, tenant, m.objects, m.moves); err == nil {
			fault.Point("compact.before-commit")
		}
		return err
	})
	if fail.Is(err, api.Conflict) { // it took longer than the grace period of a collection
		return nil
	}
	if err == nil {
		r.count(m.moved)
	}
	return err
}

func (r *run) count(moved []items.Blob) {
	objects := map[int64]bool{}
	for _, b := range moved {
		r.done.Blobs++
		r.done.Bytes += b.SealedSize()
		objects[b.ObjectID()] = true
	}
	r.done.Objects += int64(len(objects))
}

// moving is blobs that were copied and whose rows are to be changed.
type moving struct {
	items   *items.Store
	tenant  int64
	objects []items.Object
	moves   []items.Move
	moved   []items.Blob // by the transaction
}

// store copies the blobs into new objects and makes these durable.
func (m *moving) store(ctx context.Context, blobs []items.Blob) error {
	batch, err := m.items.NewBatch(ctx)
	if err != nil {
		return err
	}
	defer batch.Discard()
	slices.SortFunc(blobs, items.Blob.ComparePlace)
	olds, err := batch.Copy(ctx, blobs)
	if err != nil || len(olds) == 0 {
		return err
	}
	news, err := batch.Commit(ctx)
	if err != nil {
		return err
	}
	m.objects = batch.Objects()
	for i, b := range news {
		m.moves = append(m.moves, items.Move{Old: olds[i], New: b})
	}
	return nil
}

// Prepare has nothing to do again.
func (m *moving) Prepare(context.Context) error { return nil }

// Close deletes the new objects to which no row refers.
func (m *moving) Close(ctx context.Context, outcome store.Outcome) {
	if outcome == store.Unknown {
		return
	}
	var news []items.Blob
	for _, move := range m.moves {
		news = append(news, move.New)
	}
	if outcome == store.NotCommitted {
		m.moved = nil
	}
	m.items.DeleteUnused(ctx, news, m.moved)
	if outcome == store.Committed {
		fault.Point("compact.after-commit")
	}
}

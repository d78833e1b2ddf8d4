package bench

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// fillRows is about how many rows one transaction of a fill writes.
const fillRows = 1 << 16

// fill inserts the same rows of mailboxes as container.CreateMany. Each transaction
// inserts them in the order of the hashes of their names, which suits the index best.
func (w *fixture) fill(ctx context.Context) error {
	pol, err := w.policy(ctx)
	if err != nil {
		return err
	}
	key, err := w.Policies.Open(ctx, w.Tenant.ID, pol.Current.ID, policy.User)
	if err != nil {
		return err
	}
	defer key.Zero()
	directory, err := w.Containers.Directory(ctx, w.Tenant.ID)
	if err != nil {
		return err
	}
	f := mailboxes{tenant: w.Tenant.ID, policy: pol, key: key, directory: directory, slots: w.options.PageSlots}
	batch := max(fillRows/f.slots, 1) * f.slots
	return inParallel(ctx, w.options.Containers, batch, func(first, n int) ([]rowsOf, error) {
		return f.rows(first, n)
	}, w.bulk().insert)
}

func (w *fixture) bulk() bulk { return bulk{w.DB, w.database} }

// inParallel prepares n items in batches on all cores and writes them in order.
func inParallel(ctx context.Context, n, batch int, prepare func(first, n int) ([]rowsOf, error), write func(context.Context, ...rowsOf) error) error {
	type prepared struct {
		parts []rowsOf
		err   error
	}
	queue := make(chan chan prepared, runtime.GOMAXPROCS(0))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(queue)
		for first := 0; first < n; first += batch {
			ready := make(chan prepared, 1)
			select {
			case queue <- ready:
			case <-ctx.Done():
				return ctx.Err()
			}
			go func() {
				parts, err := prepare(first, min(batch, n-first))
				ready <- prepared{parts, err}
			}()
		}
		return nil
	})
	g.Go(func() error {
		for ready := range queue {
			p := <-ready
			if p.err != nil {
				return p.err
			}
			if err := write(ctx, p.parts...); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// mailboxes makes the rows of mailboxes.
type mailboxes struct {
	tenant    int64
	policy    policy.Policy
	key       *envelope.Key // of the policy
	directory *container.Directory
	slots     int
}

func mailboxName(i int) string { return fmt.Sprintf("user%d@contoso.com", i) }

func (f mailboxes) rows(first, n int) ([]rowsOf, error) {
	type one struct {
		name string
		hash []byte
	}
	all := make([]one, n)
	for i := range all {
		name := mailboxName(first + i)
		all[i] = one{name, f.directory.Hash(string(container.Mailbox), 0, name)}
	}
	slices.SortFunc(all, func(a, b one) int { return bytes.Compare(a.hash, b.hash) })
	created := time.Now().UnixMilli()
	containers, pages, totals := rowsOf{table: containerTable}, rowsOf{table: pageTable}, rowsOf{table: totalTable}
	for part := range slices.Chunk(all, f.slots) {
		page := keypage.Row{ID: store.NewID(), Tenant: f.tenant, Parent: f.policy.Current.ID, Generation: f.policy.Current.Generation, Class: envelope.ClassActive}
		children := make([]int64, len(part))
		for i, c := range part {
			children[i] = store.NewID()
			containers.rows = append(containers.rows, []any{children[i], f.tenant, string(container.Mailbox), c.hash, f.directory.Seal(children[i], c.name),
				int64(page.Class), f.policy.ID, page.ID, int64(1), created, string(api.UserMailbox), []byte{}})
			totals.rows = append(totals.rows, []any{children[i], f.tenant, int64(0), int64(0)})
		}
		row, err := newPage(f.key, page, children)
		if err != nil {
			return nil, err
		}
		pages.rows = append(pages.rows, row)
	}
	return []rowsOf{pages, containers, totals}, nil
}

// newPage returns the row of a new page with new keys for children.
func newPage(key *envelope.Key, row keypage.Row, children []int64) ([]any, error) {
	slots := make([]envelope.Slot, len(children))
	for i, child := range children {
		slots[i] = envelope.Slot{Child: child, Generation: 1, Key: *envelope.NewKey()}
	}
	page, err := envelope.NewPage(slots...)
	if err != nil {
		return nil, err
	}
	defer page.Zero()
	row.Version, row.Count = 1, uint32(len(children))
	body, err := envelope.SealPage(key, row.EncryptionContext(), page)
	return []any{row.ID, row.Tenant, row.Parent, int64(row.Generation), int64(row.Class), int64(row.Version), int64(row.Count), body}, err
}

// metadataBytes is the size of a message's sealed metadata, with a subject and a
// sender of usual length.
const metadataBytes = 190

// fillItems gives each mailbox that many messages, with rows and keys but without
// content, which only depth content reads.
func (w *fixture) fillItems(ctx context.Context, items int) error {
	type one struct {
		id  int64
		key *envelope.Key
	}
	var all []one
	err := w.slots(ctx, func(slot envelope.Slot) (bool, error) {
		all = append(all, one{slot.Child, slot.Key.Clone()})
		return true, nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b one) int { return cmp.Compare(a.id, b.id) })
	err = w.DB.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE item_total SET items = items + ?1, bytes = bytes + ?1`, items)
		return err
	})
	if err != nil {
		return err
	}
	return inParallel(ctx, len(all), max(fillRows/items, 1), func(first, n int) (parts []rowsOf, err error) {
		pages, item, blob := rowsOf{table: pageTable}, rowsOf{table: itemTable}, rowsOf{table: blobTable}
		created := time.Now().UnixMilli()
		for _, c := range all[first : first+n] {
			for left := items; left > 0; left -= w.options.PageSlots {
				page := keypage.Row{ID: store.NewID(), Tenant: w.Tenant.ID, Parent: c.id, Generation: 1, Class: envelope.ClassBlob}
				children := make([]int64, min(left, w.options.PageSlots))
				for i := range children {
					children[i] = store.NewID()
					id, metadata := store.NewID(), make([]byte, metadataBytes)
					rand.Read(metadata)
					item.rows = append(item.rows, []any{id, w.Tenant.ID, c.id, int64(1), metadata, int64(1), created})
					blob.rows = append(blob.rows, []any{children[i], w.Tenant.ID, id, int64(0), int64(1), page.ID})
				}
				row, err := newPage(c.key, page, children)
				if err != nil {
					return nil, err
				}
				pages.rows = append(pages.rows, row)
			}
		}
		return []rowsOf{pages, item, blob}, nil
	}, w.bulk().insert)
}

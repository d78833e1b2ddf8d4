package renew

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// pagesAtOnce is how many key pages one transaction of Rewrap swaps.
const pagesAtOnce = 32

// Rewrapping holds the callbacks of Rewrap.
type Rewrapping struct {
	// LockRunning is called first in each transaction and fails if the work must not go on.
	LockRunning func(tx *store.Tx) error
	// Done is called in each transaction with the number of blob keys re-wrapped.
	Done func(tx *store.Tx, blobs int64) error
	// Skip is called for each key page that cannot be decrypted, with the reason.
	Skip func(container, page int64, err error)
}

// Rewrap re-wraps the key pages of the blobs of some containers of a tenant from the
// older generation of the container keys to the present one. It writes no blob and no
// item. A page that another transaction changed is left for another call, one that
// cannot be decrypted is skipped.
func (s *Renewer) Rewrap(ctx context.Context, tenant int64, containers []container.Opened, r Rewrapping) error {
	byID := make(map[int64]container.Opened, len(containers))
	generations := make(map[int64]uint32, len(containers))
	for _, o := range containers {
		byID[o.ID], generations[o.ID] = o, o.Generation
	}
	var ids []int64
	err := s.db.View(ctx, func(tx *store.Tx) error {
		pages, err := UnderOlder(ctx, tx, tenant, generations)
		ids = ids[:0]
		for _, at := range pages {
			ids = append(ids, at.ID)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("re-wrap blob keys: %w", err)
	}
	for part := range slices.Chunk(ids, pagesAtOnce) {
		if err := s.rewrapPages(ctx, tenant, byID, part, r); err != nil {
			return fmt.Errorf("re-wrap blob keys: %w", err)
		}
	}
	return nil
}

// UnderOlder returns the locations of the pages of blob keys that are under the older
// keys of some containers of a tenant; generations are those of the present keys.
func UnderOlder(ctx context.Context, tx *store.Tx, tenant int64, generations map[int64]uint32) ([]keypage.Location, error) {
	parents := make([]keypage.Parent, 0, len(generations))
	for _, id := range slices.Sorted(maps.Keys(generations)) {
		parents = append(parents, keypage.Parent{ID: id, Generation: generations[id] - 1})
	}
	return keypage.Locate(ctx, tx, tenant, envelope.ClassBlob, parents)
}

// ConfirmNoneUnderOlder returns those of some containers of a tenant that still have
// a key page of blobs under an older key than that of the given generation, with an
// error for each. It reads the table from end to end and does not rely on the index
// by which UnderOlder found none.
func (s *Renewer) ConfirmNoneUnderOlder(ctx context.Context, tenant int64, generations map[int64]uint32) (map[int64]error, error) {
	wrong := map[int64]error{}
	ids := slices.Collect(maps.Keys(generations))
	err := s.db.Scan(ctx, store.ScanQuery{Table: "key_page", Columns: "tenant, class, parent, generation, id", Column: "parent", IDs: ids}, func(row store.Scanner) error {
		var page keypage.Row
		if err := row.Scan(&page.Tenant, &page.Class, &page.Parent, &page.Generation, &page.ID); err != nil {
			return err
		}
		if page.Tenant == tenant && page.Class == envelope.ClassBlob && page.Generation < generations[page.Parent] {
			wrong[page.Parent] = store.Contradiction("key page %d is under the older key of container %d", page.ID, page.Parent)
		}
		return nil
	})
	return wrong, err
}

// rewrapPages re-wraps some pages in one transaction.
func (s *Renewer) rewrapPages(ctx context.Context, tenant int64, byID map[int64]container.Opened, ids []int64, r Rewrapping) error {
	var rows []keypage.Row
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = keypage.GetAll(ctx, tx, tenant, ids)
		return err
	})
	if err != nil {
		return err
	}
	olds, news := make([]keypage.Row, 0, len(rows)), make([]keypage.Row, 0, len(rows))
	for _, old := range rows {
		o, there := byID[old.Parent]
		if !there || old.Class != envelope.ClassBlob || old.Generation != o.Generation-1 { // changed in the meantime
			continue
		}
		next, err := rewrapped(o, old)
		if fail.Is(err, api.Damaged) {
			r.Skip(old.Parent, old.ID, err)
			continue
		}
		if err != nil {
			return err
		}
		olds, news = append(olds, old), append(news, next)
	}
	return s.swapPages(ctx, olds, news, r)
}

// rewrapped returns a key page resealed under the present key of its container.
func rewrapped(o container.Opened, old keypage.Row) (next keypage.Row, err error) {
	from, err := o.KeyOf(old.Generation)
	if err != nil {
		return next, err
	}
	next = old
	next.Generation, next.Version = o.Generation, old.Version+1
	next.Body, err = envelope.Reseal(from, o.Key, old.EncryptionContext(), next.EncryptionContext(), old.Body)
	return next, err
}

func (s *Renewer) swapPages(ctx context.Context, olds, news []keypage.Row, r Rewrapping) error {
	if len(olds) == 0 {
		return nil
	}
	fault.Point("rewrap.before-commit")
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := r.LockRunning(tx); err != nil {
			return err
		}
		swapped, err := keypage.Swap(ctx, tx, olds, news)
		if err != nil {
			return err
		}
		var blobs int64
		for i, ok := range swapped {
			if ok {
				blobs += int64(news[i].Count)
			}
		}
		return r.Done(tx, blobs)
	})
	if err == nil {
		fault.Point("rewrap.after-commit")
	}
	return err
}

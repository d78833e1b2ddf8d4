package keypage

import (
	"context"
	"errors"
	"fmt"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/store"
)

// errConflict rolls back a merge whose pages another transaction changed.
var errConflict = errors.New("fold: another transaction changed a key page")

// Foldable selects the pages that a fold merges: those of a tenant under one parent, of
// one class, that have at most half of Slots slots.
type Foldable struct {
	Tenant int64
	Parent Parent
	Class  envelope.Class
	Slots  int
}

// Fold merges small pages into pages of at most Slots slots, and returns how many pages
// it removed. key is the parent's. Each merge is one transaction over at most Slots children;
// in it repoint sets the pointers of the moved children to page. Keys stay under
// their parent, so a fold needs no lock on a policy.
//
// A merge that conflicts with another transaction is rolled back and left for the
// next fold. A page that cannot be decrypted is left as it is and does not block the
// others; when all others are folded, the error of the first such page is returned.
func Fold(ctx context.Context, db *store.DB, key *envelope.Key, which Foldable,
	repoint func(ctx context.Context, tx *store.Tx, children []int64, page int64) error) (merged int, err error) {
	var damaged error
	for after := int64(0); ; {
		var rows []Row
		var next int64
		err := db.View(ctx, func(tx *store.Tx) (err error) {
			rows, next, err = which.next(ctx, tx, after)
			return err
		})
		if err != nil {
			return merged, fmt.Errorf("fold key pages of parent %d: %w", which.Parent.ID, err)
		}
		if next == after {
			return merged, damaged
		}
		after = next
		f, err := merge(key, rows)
		if err != nil {
			damaged = firstError(damaged, err)
		}
		if len(f.removed) == 0 {
			continue
		}
		err = f.commit(ctx, db, repoint)
		if errors.Is(err, errConflict) {
			continue
		}
		if fail.Is(err, api.Damaged) {
			damaged = firstError(damaged, err)
			continue
		}
		if err != nil {
			return merged, fmt.Errorf("fold key pages of parent %d: %w", which.Parent.ID, err)
		}
		merged += len(f.removed)
	}
}

// next returns the next small pages after an id that together fill at most
// one page, and the id after which to continue; that is after itself if none is left.
func (f Foldable) next(ctx context.Context, tx *store.Tx, after int64) (rows []Row, next int64, err error) {
	small, err := tx.Query(ctx, selectSmall, f.Tenant, f.Class, f.Parent.ID, f.Parent.Generation, f.Slots/2, after, f.Slots)
	if err != nil {
		return nil, after, err
	}
	var ids []int64
	next = after
	for sum := 0; small.Next(); {
		var id int64
		var count int
		if err := small.Scan(&id, &count); err != nil {
			return nil, after, errors.Join(err, small.Close())
		}
		if sum += count; sum > f.Slots {
			break
		}
		ids = append(ids, id)
		next = id
	}
	if err := errors.Join(small.Err(), small.Close()); err != nil || len(ids) == 1 {
		return nil, next, err
	}
	for _, id := range ids {
		row, err := Get(ctx, tx, f.Tenant, id)
		if err != nil {
			return nil, after, err
		}
		rows = append(rows, row)
	}
	return rows, next, nil
}

// selectSmall reads only the index key_page_place.
const selectSmall = `SELECT id, count FROM key_page
	WHERE tenant = ?1 AND class = ?2 AND parent = ?3 AND generation = ?4 AND count <= ?5 AND id > ?6 ORDER BY id LIMIT ?7`

// mergedPages is a merge ready to be written: the page with the lowest id receives the
// slots of the others.
type mergedPages struct {
	old, kept Row
	removed   []Row   // the removed pages, in id order as for every other writer of pages
	children  []int64 // of the removed pages
}

// merge seals one page from those of rows that can be decrypted, and returns Damaged
// for the first that cannot. If fewer than two can, there is nothing to write.
func merge(key *envelope.Key, rows []Row) (f mergedPages, err error) {
	var sum *envelope.Page
	for _, row := range rows {
		page, openErr := envelope.OpenPage(key, row.EncryptionContext(), row.Body)
		if openErr != nil {
			err = firstError(err, openErr)
			continue
		}
		if sum == nil {
			f.old, sum = row, page
			defer func() { sum.Zero() }()
			continue
		}
		both, mergeErr := envelope.Merge(sum, page)
		if mergeErr != nil {
			page.Zero()
			err = firstError(err, fail.New(api.Damaged, "fold key page %d into %d: %v", row.ID, f.old.ID, mergeErr))
			continue
		}
		f.removed = append(f.removed, row)
		f.children = append(f.children, children(page)...)
		page.Zero()
		sum.Zero()
		sum = both
	}
	if len(f.removed) == 0 {
		return f, err
	}
	f.kept = f.old
	f.kept.Version++
	f.kept.Count = uint32(sum.Len())
	body, sealErr := envelope.SealPage(key, f.kept.EncryptionContext(), sum)
	if sealErr != nil {
		return mergedPages{}, firstError(err, sealErr)
	}
	f.kept.Body = body
	return f, err
}

// firstError returns the earlier of two errors.
func firstError(err, later error) error {
	if err != nil {
		return err
	}
	return later
}

// children returns each child of a page once, in order.
func children(page *envelope.Page) []int64 {
	var ids []int64
	for _, s := range page.Slots() {
		s.Key.Zero()
		if len(ids) == 0 || ids[len(ids)-1] != s.Child {
			ids = append(ids, s.Child)
		}
	}
	return ids
}

func (f mergedPages) commit(ctx context.Context, db *store.DB, repoint func(context.Context, *store.Tx, []int64, int64) error) error {
	err := db.InTx(ctx, func(tx *store.Tx) error {
		swapped, err := Swap(ctx, tx, []Row{f.old}, []Row{f.kept})
		if err != nil {
			return err
		}
		deleted, err := Delete(ctx, tx, f.removed...)
		if err != nil {
			return err
		}
		for _, ok := range append(swapped, deleted...) {
			if !ok {
				return errConflict
			}
		}
		if err := repoint(ctx, tx, f.children, f.kept.ID); err != nil {
			return err
		}
		fault.Point("fold.before-commit")
		return nil
	})
	if err == nil {
		fault.Point("fold.after-commit")
	}
	return err
}

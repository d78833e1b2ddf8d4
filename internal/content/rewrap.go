package content

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// rewrapPages is how many key pages one transaction of Rewrap swaps.
const rewrapPages = 32

// Rewrapping says how Rewrap goes about its work.
type Rewrapping struct {
	// Hold begins each transaction and says whether the work is still wanted.
	Hold func(tx *store.Tx) error
	// Done is called in each transaction with the blob keys that it brought over.
	Done func(tx *store.Tx, blobs int64) error
	// Skip is told of each key page of a container that does not open, and why.
	Skip func(container, page int64, err error)
}

// Rewrap brings the key pages of the blobs of some containers from the older
// generation of their containers' keys to the present one. No blob and no item
// is written. A page that somebody else changed is left for another call, one
// that does not open is skipped.
func (s *Contents) Rewrap(ctx context.Context, tenant int64, containers []container.Opened, r Rewrapping) error {
	byID := make(map[int64]container.Opened, len(containers))
	var parents []keypage.Parent
	for _, o := range containers {
		if o.Older != 0 {
			byID[o.ID] = o
			parents = append(parents, keypage.Parent{ID: o.ID, Generation: o.Generation - 1})
		}
	}
	for after := int64(0); len(parents) > 0; {
		var rows []keypage.Row
		err := s.db.View(ctx, func(tx *store.Tx) (err error) {
			rows, err = keypage.Under(ctx, tx, tenant, parents, []envelope.Class{envelope.ClassBlob}, after, rewrapPages)
			return err
		})
		if err != nil {
			return fmt.Errorf("wrap blob keys anew: %w", err)
		}
		if len(rows) == 0 {
			return nil
		}
		after = rows[len(rows)-1].ID
		olds, news := make([]keypage.Row, 0, len(rows)), make([]keypage.Row, 0, len(rows))
		for _, old := range rows {
			next, err := rewrapped(byID[old.Parent], old)
			if fail.Is(err, api.Damaged) {
				r.Skip(old.Parent, old.ID, err)
				continue
			}
			if err != nil {
				return fmt.Errorf("wrap blob keys anew: %w", err)
			}
			olds, news = append(olds, old), append(news, next)
		}
		if err := s.swapPages(ctx, olds, news, r); err != nil {
			return fmt.Errorf("wrap blob keys anew: %w", err)
		}
	}
	return nil
}

// rewrapped returns a key page under the present key of its container.
func rewrapped(o container.Opened, old keypage.Row) (next keypage.Row, err error) {
	from, err := o.KeyOf(old.Generation)
	if err != nil {
		return next, err
	}
	next = old
	next.Generation, next.Version = o.Generation, old.Version+1
	next.Body, err = envelope.Reseal(from, o.Key, old.Place(), next.Place(), old.Body)
	return next, err
}

func (s *Contents) swapPages(ctx context.Context, olds, news []keypage.Row, r Rewrapping) error {
	if len(olds) == 0 {
		return nil
	}
	fault.Point("rewrap.before-commit")
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := r.Hold(tx); err != nil {
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

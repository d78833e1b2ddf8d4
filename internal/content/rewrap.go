package content

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

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

// Rewrap brings the key pages of the blobs of some containers, which stand in one
// key page and come in id order, from the older generation of their keys to the
// present one. No blob and no item
// is written. A page that somebody else changed is left for another call, one
// that does not open is skipped.
func (s *Contents) Rewrap(ctx context.Context, tenant int64, containers []container.Opened, r Rewrapping) error {
	if len(containers) == 0 {
		return nil
	}
	byID := make(map[int64]container.Opened, len(containers))
	for _, o := range containers {
		byID[o.ID] = o
	}
	first, last := containers[0], containers[len(containers)-1]
	for after := (keypage.Row{}); ; {
		var rows []keypage.Row
		err := s.db.View(ctx, func(tx *store.Tx) (err error) {
			rows, err = container.UnderOlder(ctx, tx, tenant, first.Page, first.ID, last.ID, after, rewrapPages)
			return err
		})
		if err != nil {
			return fmt.Errorf("wrap blob keys anew: %w", err)
		}
		if len(rows) == 0 {
			return nil
		}
		after = rows[len(rows)-1]
		after.Body = nil
		olds, news := make([]keypage.Row, 0, len(rows)), make([]keypage.Row, 0, len(rows))
		for _, old := range rows {
			o, mine := byID[old.Parent]
			if !mine { // another node works on it
				continue
			}
			next, err := rewrapped(o, old)
			if errors.Is(err, container.ErrGeneration) {
				continue
			}
			if fail.Is(err, api.Damaged) {
				r.Skip(old.Parent, old.ID, err)
				continue
			}
			if err != nil {
				return fmt.Errorf("wrap blob keys anew: %w", err)
			}
			olds, news = append(olds, old), append(news, next)
		}
		byPage := func(a, b keypage.Row) int { return cmp.Compare(a.ID, b.ID) }
		slices.SortFunc(olds, byPage) // as all who swap pages do
		slices.SortFunc(news, byPage)
		if err := s.swapPages(ctx, olds, news, r); err != nil {
			return fmt.Errorf("wrap blob keys anew: %w", err)
		}
	}
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

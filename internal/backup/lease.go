package backup

import (
	"context"
	"strconv"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/lease"
	"keyroll/internal/store"
)

// copyLeases is the prefix of the names of the leases of copies under way; the id of
// the container that is being filled follows.
const copyLeases = "copy/"

func errDiscarded() *fail.Error {
	return fail.New(api.Unavailable, "another node has discarded this copy").WithHint("try again")
}

// insertCopiedItems stores a part of a copy, unless another node has discarded the copy
// and is deleting its rows.
func insertCopiedItems(ctx context.Context, tx *store.Tx, container int64, insert func() error) error {
	if err := tx.Lock(ctx, container, false); err != nil {
		return err
	}
	under, err := items.IsCopying(ctx, tx, container)
	if err == nil && !under {
		err = errDiscarded()
	}
	if err != nil {
		return err
	}
	return insert()
}

// unfinishedNotCopying returns the ids of a tenant's containers that do not exist while items
// of them do, without those that this or another node is filling.
func (s *Backups) unfinishedNotCopying(ctx context.Context, tx *store.Tx, tenant int64) (left []int64, err error) {
	elsewhere, err := lease.Live(ctx, tx, copyLeases)
	if err != nil {
		return nil, err
	}
	all, err := items.Unfinished(ctx, tx, tenant, s.copies.current())
	for _, container := range all {
		if _, under := elsewhere[strconv.FormatInt(container, 10)]; !under {
			left = append(left, container)
		}
	}
	return left, err
}

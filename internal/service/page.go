package service

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// pageBuilder builds a page of a list. The caller reads limit+1 rows; the extra one
// means that another page follows. A damaged entry is reported and does not hide the
// others.
type pageBuilder[T any] struct {
	limit   int
	n       int
	last    int64 // id of the last entry that is within the limit
	items   []T
	damaged []string
}

// add adds the next entry; it returns a failure other than damage.
func (p *pageBuilder[T]) add(id int64, item T, err error) error {
	if p.n++; p.n > p.limit {
		return nil
	}
	p.last = id
	if err == nil {
		p.items = append(p.items, item)
		return nil
	}
	return p.addDamage(err)
}

// addDamage adds damage that belongs to no entry.
func (p *pageBuilder[T]) addDamage(err error) error {
	if !fail.Is(err, api.Damaged) {
		return err
	}
	_, detail, _ := fail.Public(err)
	p.damaged = append(p.damaged, detail)
	return nil
}

func (p *pageBuilder[T]) list() api.List[T] {
	l := api.List[T]{Items: p.items, Damaged: p.damaged}
	if l.Items == nil {
		l.Items = []T{}
	}
	if p.n > p.limit {
		l.Next = fmt.Sprint(p.last)
	}
	return l
}

// listAll converts all rows with show and returns them in one page.
func listAll[R, T any](ctx context.Context, c *call, rows func(tx *store.Tx) ([]R, error), show func(tx *store.Tx, r R) (T, error)) (api.List[T], error) {
	var all pageBuilder[T]
	err := c.read(ctx, func(tx *store.Tx) error {
		list, err := rows(tx)
		if err != nil {
			return err
		}
		all = pageBuilder[T]{limit: len(list)}
		for _, r := range list {
			item, err := show(tx, r)
			if err := all.add(0, item, err); err != nil {
				return err
			}
		}
		return nil
	})
	return all.list(), err
}

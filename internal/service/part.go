package service

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// part is a part of a list under way. Rows are asked for one more than limit;
// the one over says that there is more. An entry that is damaged is told as that
// and hides no other.
type part[T any] struct {
	limit   int
	n       int
	last    int64 // id of the last entry that is within the limit
	items   []T
	damaged []string
}

// add takes the next entry in; a failure other than damage is returned.
func (p *part[T]) add(id int64, item T, err error) error {
	if p.n++; p.n > p.limit {
		return nil
	}
	p.last = id
	if err == nil {
		p.items = append(p.items, item)
		return nil
	}
	return p.lost(err)
}

// lost takes in damage that has no place among the entries.
func (p *part[T]) lost(err error) error {
	if !fail.Is(err, api.Damaged) {
		return err
	}
	_, detail, _ := fail.Public(err)
	p.damaged = append(p.damaged, detail)
	return nil
}

func (p *part[T]) list() api.List[T] {
	l := api.List[T]{Items: p.items, Damaged: p.damaged}
	if l.Items == nil {
		l.Items = []T{}
	}
	if p.n > p.limit {
		l.Next = fmt.Sprint(p.last)
	}
	return l
}

// listAll shows each of rows, all of them in one part.
func listAll[R, T any](ctx context.Context, c *call, rows func(tx *store.Tx) ([]R, error), show func(tx *store.Tx, r R) (T, error)) (api.List[T], error) {
	var all part[T]
	err := c.read(ctx, func(tx *store.Tx) error {
		list, err := rows(tx)
		if err != nil {
			return err
		}
		all = part[T]{limit: len(list)}
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

package service

import (
	"context"
	"fmt"
	"strconv"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// row is an entry of a list: an item, or why it cannot be shown.
type row[T any] struct {
	id   int64 // after which the next page may begin
	item T
	err  error
}

// rowsOf converts the entries of a page.
func rowsOf[R, T any](list []R, of func(R) row[T]) []row[T] {
	rows := make([]row[T], len(list))
	for i, r := range list {
		rows[i] = of(r)
	}
	return rows
}

// listPage reads a page of a list in one snapshot. rows returns the first limit entries
// after an id, in the order of the list; one more than fits is read, which means that
// another page follows.
func listPage[T any](ctx context.Context, c *call, in api.PageInput, rows func(tx *store.Tx, after int64, limit int) ([]row[T], error)) (list api.List[T], err error) {
	after, limit, err := parsePage(in)
	if err != nil {
		return list, err
	}
	return list, c.read(ctx, func(tx *store.Tx) error {
		read, err := rows(tx, after, limit+1)
		if err == nil {
			list, err = pageOf(read, limit)
		}
		return err
	})
}

// pageOf makes a page of up to limit entries; another one means that a page follows. A
// damaged entry is reported and does not hide the others; pageOf returns any other
// failure.
func pageOf[T any](rows []row[T], limit int) (api.List[T], error) {
	l := api.List[T]{Items: []T{}}
	if len(rows) > limit {
		rows = rows[:limit]
		l.Next = fmt.Sprint(rows[limit-1].id)
	}
	for _, r := range rows {
		if r.err == nil {
			l.Items = append(l.Items, r.item)
		} else if err := addDamage(&l, r.err); err != nil {
			return api.List[T]{}, err
		}
	}
	return l, nil
}

// addDamage adds damage to a page; it returns any other failure.
func addDamage[T any](l *api.List[T], err error) error {
	if !fail.Is(err, api.Damaged) {
		return err
	}
	_, detail, _ := fail.Public(err)
	l.Damaged = append(l.Damaged, detail)
	return nil
}

// parsePage checks the position and size of a page of a list.
func parsePage(in api.PageInput) (after int64, limit int, err error) {
	if in.After != "" {
		if after, err = strconv.ParseInt(in.After, 10, 64); err != nil {
			return 0, 0, fail.New(api.InvalidArgument, "after %q is not a valid page token", in.After)
		}
	}
	if in.Limit < 0 || in.Limit > 1000 {
		return 0, 0, fail.New(api.InvalidArgument, "limit %d must be 0 to 1000", in.Limit)
	}
	if in.Limit == 0 {
		in.Limit = 100
	}
	return after, in.Limit, nil
}

package operation

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Row is an entry of a list: an item, or why it cannot be shown.
type Row[T any] struct {
	ID   int64 // after which the next page may begin
	Item T
	Err  error
}

// RowsOf converts the entries of a page.
func RowsOf[R, T any](list []R, of func(R) Row[T]) []Row[T] {
	rows := make([]Row[T], len(list))
	for i, r := range list {
		rows[i] = of(r)
	}
	return rows
}

// ListPage reads a page of a list in one snapshot. rows returns the first limit entries
// after an id, in the order of the list; one more than fits is read, which means that
// another page follows.
func ListPage[T any](ctx context.Context, c *Call, in api.PageInput, rows func(tx *store.Tx, after int64, limit int) ([]Row[T], error)) (list api.List[T], err error) {
	after, limit, err := ParsePage(in)
	if err != nil {
		return list, err
	}
	return list, c.Read(ctx, func(tx *store.Tx) error {
		read, err := rows(tx, after, limit+1)
		if err == nil {
			list, err = PageOf(read, limit)
		}
		return err
	})
}

// PageOf makes a page of up to limit entries; another one means that a page follows. A
// damaged entry is reported and does not hide the others; PageOf returns any other
// failure.
func PageOf[T any](rows []Row[T], limit int) (api.List[T], error) {
	l := api.List[T]{Items: []T{}}
	if len(rows) > limit {
		rows = rows[:limit]
		l.Next = fmt.Sprint(rows[limit-1].ID)
	}
	for _, r := range rows {
		if r.Err == nil {
			l.Items = append(l.Items, r.Item)
		} else if err := AddDamage(&l, r.Err); err != nil {
			return api.List[T]{}, err
		}
	}
	return l, nil
}

// AddDamage adds damage to a page; it returns any other failure.
func AddDamage[T any](l *api.List[T], err error) error {
	if !fail.Is(err, api.Damaged) {
		return err
	}
	_, detail, _ := fail.Public(err)
	l.Damaged = append(l.Damaged, detail)
	return nil
}

// ParsePage checks the position and size of a page of a list.
func ParsePage(in api.PageInput) (after int64, limit int, err error) {
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

// TimeOrNil converts a time for an answer; nil means that the time is zero.
func TimeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

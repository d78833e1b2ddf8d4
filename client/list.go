package client

import (
	"context"
	"slices"
	"strings"

	"keyroll/api"
)

// Sizes of the pages of a list that is read to its end: the first one is small, so that
// its items can be shown at once.
const (
	firstPage = 100
	laterPage = 1000
)

// EachPage reads a list page by page to its end and calls f with the items of each page.
// read returns the page that its argument selects, for example by ListMailboxes.
func EachPage[T any](read func(api.PageInput) (api.List[T], error), f func(items []T) error) error {
	for page := (api.PageInput{Limit: firstPage}); ; {
		l, err := read(page)
		if err != nil {
			return err
		}
		if err := f(l.Items); err != nil || l.Next == "" {
			return err
		}
		page = api.PageInput{After: l.Next, Limit: laterPage}
	}
}

// whole returns one page of a list, or the whole list if in selects no page.
func whole[T any](in api.PageInput, read func(api.PageInput) (api.List[T], error)) (api.List[T], error) {
	all, err := read(in)
	if err != nil || in != (api.PageInput{}) {
		return all, err
	}
	for all.Next != "" {
		l, err := read(api.PageInput{After: all.Next, Limit: laterPage})
		if err != nil {
			return all, err
		}
		all.Items, all.Damaged, all.Next = append(all.Items, l.Items...), append(all.Damaged, l.Damaged...), l.Next
	}
	return all, nil
}

// wholeList is whole for an operation without other input.
func wholeList[T any](ctx context.Context, c *Client, op api.Operation[api.ListInput, api.List[T]], in api.ListInput) (api.List[T], error) {
	return whole(in.PageInput, func(page api.PageInput) (api.List[T], error) {
		return call(ctx, c, op, api.ListInput{PageInput: page})
	})
}

// byPath sorts the files of a list. Of a file that was replaced while its pages were read
// and is listed twice, the later entry counts.
func byPath(l api.List[api.File], err error) (api.List[api.File], error) {
	slices.Reverse(l.Items)
	slices.SortStableFunc(l.Items, func(a, b api.File) int { return strings.Compare(a.Path, b.Path) })
	l.Items = slices.CompactFunc(l.Items, func(a, b api.File) bool { return a.Path == b.Path })
	return l, err
}

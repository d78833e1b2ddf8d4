package store

import (
	"regexp"
	"strconv"
	"sync"
)

// Selection is a query for ids that the package that owns a table makes, and that others
// use in their statements without knowing the table.
type Selection struct {
	query string
	args  []any
}

// Select returns a selection by a query and its parameters.
func Select(query string, args ...any) Selection { return Selection{query, args} }

var parameter = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\?\d+`) })

// In returns the selection for IN. Its parameters follow those in args, as in InList.
func (s Selection) In(args []any) (text string, _ []any) {
	text = parameter().ReplaceAllStringFunc(s.query, func(p string) string {
		n, _ := strconv.Atoi(p[1:])
		return "?" + strconv.Itoa(len(args)+n)
	})
	return `(` + text + `)`, append(args, s.args...)
}

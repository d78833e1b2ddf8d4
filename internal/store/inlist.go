package store

import (
	"fmt"
	"math/bits"
	"strings"
)

// PaddedLen rounds the number of terms of a statement up to a power of two, so that few
// different statements serve all n: a database spends more time on preparing a new
// statement than on superfluous terms.
func PaddedLen(n int) int { return 1 << bits.Len(uint(n-1)) }

// InList returns a list of values, of which there is at least one, for IN. Its parameters
// follow those in args. The last value is repeated up to PaddedLen.
func InList(values []int64, args []any) (text string, _ []any) {
	placeholders := make([]string, PaddedLen(len(values)))
	for i := range placeholders {
		args = append(args, values[min(i, len(values)-1)])
		placeholders[i] = fmt.Sprintf("?%d", len(args))
	}
	return `(` + strings.Join(placeholders, `, `) + `)`, args
}

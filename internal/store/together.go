package store

import (
	"context"
	"fmt"
	"math/bits"
	"strings"
)

// maxTogether is how many rows one statement of ExecTogether has at most.
const maxTogether = 128

// ExecTogether runs a statement on rows of integers, many of them at once, and reports how
// many table rows it changed in all. In the statement, ROWS stands for a table of the rows,
// with the columns column1, column2 and so on. On SQLite it is faster than ExecMany for a
// statement that may fail in the middle: such a statement first copies each page that it
// changes.
func (tx *Tx) ExecTogether(ctx context.Context, query string, rows [][]int64) (affected int64, err error) {
	for len(rows) > 0 {
		n := min(maxTogether, 1<<(bits.Len(uint(len(rows)))-1)) // a power of two: few different statements
		table, args := rowsTable(rows[:n])
		changed, err := tx.Exec(ctx, strings.Replace(query, "ROWS", table, 1), args...)
		if err != nil {
			return 0, err
		}
		affected, rows = affected+changed, rows[n:]
	}
	return affected, nil
}

// rowsTable returns a table of rows for FROM.
func rowsTable(rows [][]int64) (text string, args []any) {
	var b strings.Builder
	b.WriteString("(VALUES ")
	for i, row := range rows {
		if i > 0 {
			b.WriteString(", ")
		}
		for j, value := range row {
			args = append(args, value)
			fmt.Fprintf(&b, "%cCAST(?%d AS BIGINT)", "(,"[min(j, 1)], len(args))
		}
		b.WriteByte(')')
	}
	b.WriteByte(')')
	return b.String(), args
}

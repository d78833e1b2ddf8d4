package terminal

import (
	"bufio"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Rows returns a function that prints items as soon as it is called with them: as JSON
// lines, or as the next lines of one table. The first items decide how wide the columns
// are.
func Rows[T any](to Terminal, columns string, row func(T) []any) func(items []T) error {
	out := bufio.NewWriter(to.Out)
	t := table{out: out}
	lines := [][]string{strings.Fields(strings.ToUpper(columns))}
	return func(items []T) error {
		if to.JSON {
			enc := NewEncoder(out)
			for _, item := range items {
				if err := enc.Encode(item); err != nil {
					return err
				}
			}
			return out.Flush()
		}
		for _, item := range items {
			var line []string
			for _, cell := range row(item) {
				line = append(line, Escape(fmt.Sprint(cell)))
			}
			lines = append(lines, line)
		}
		t.print(lines)
		lines = lines[:0]
		return out.Flush()
	}
}

// table prints lines of cells in columns.
type table struct {
	out    *bufio.Writer
	widths []int // of the columns: as the first lines need; nil: nothing is printed
}

// gap is the space between two columns.
const gap = 2

// print prints lines; a cell that is wider than its column moves the rest of its line.
// An error of out remains in out.
func (t *table) print(lines [][]string) {
	if t.widths == nil {
		for _, line := range lines {
			for i, cell := range line {
				if i == len(t.widths) {
					t.widths = append(t.widths, 0)
				}
				t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	for _, line := range lines {
		for i, cell := range line {
			t.out.WriteString(cell)
			if i < len(line)-1 {
				t.out.WriteString(strings.Repeat(" ", max(t.widths[i]-utf8.RuneCountInString(cell), 0)+gap))
			}
		}
		t.out.WriteByte('\n')
	}
}

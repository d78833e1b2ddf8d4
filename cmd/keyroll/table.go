package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/name"
)

// list prints items: JSON lines, or a table with the given columns.
func list[T any](e *env, items []T, columns string, row func(T) []any) error {
	return listPages(e, columns, row, func(api.PageInput) (api.List[T], error) { return api.List[T]{Items: items}, nil })
}

// listPages prints each page of a list as soon as it is read: JSON lines, or a table. The
// first page decides how wide the columns are.
func listPages[T any](e *env, columns string, row func(T) []any, read func(api.PageInput) (api.List[T], error)) error {
	out := bufio.NewWriter(e.out)
	t := table{out: out}
	lines := [][]string{strings.Fields(strings.ToUpper(columns))}
	return client.EachPage(read, func(items []T) error {
		if e.asJSON {
			enc := jsonTo(out)
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
				line = append(line, escapeText(fmt.Sprint(cell)))
			}
			lines = append(lines, line)
		}
		t.print(lines)
		lines = lines[:0]
		return out.Flush()
	})
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

// fields prints "name: value" lines, aligned.
func fields(w io.Writer, pairs ...any) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(t, "%v:\t%s\n", pairs[i], escapeText(fmt.Sprint(pairs[i+1])))
	}
	t.Flush()
}

// escapeText escapes control characters, so that text from elsewhere can go to a terminal.
func escapeText(s string) string { return name.Escape(s, "") }

// jsonTo encodes values to w as JSON whose control characters are escaped for a terminal.
func jsonTo(w io.Writer) *json.Encoder { return json.NewEncoder(escaped{w}) }

type escaped struct{ io.Writer }

// Write relies on json.Encoder, which passes whole values.
func (e escaped) Write(p []byte) (int, error) {
	if _, err := io.WriteString(e.Writer, name.EscapeJSON(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// formatSize prints a number of bytes in binary units (IEC 80000-13).
func formatSize(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	div, exp := int64(unit), 0
	for m := n / unit; m >= unit; m /= unit {
		div, exp = div*unit, exp+1
	}
	return fmt.Sprintf("%.1f %ciB", float64(n)/float64(div), "KMGTPE"[exp])
}

// byteSize is a number of bytes as people write it: 4096, 64KiB, 1GiB.
type byteSize int64

// UnmarshalText is called by kong when flags are read.
func (b *byteSize) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for suffix, bytes := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if rest, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = rest, bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64/unit {
		return fmt.Errorf("%q is not a number of bytes such as 4096, 64KiB or 1GiB", text)
	}
	*b = byteSize(n * unit)
	return nil
}

// countOf says how many there are of what one names.
func countOf(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

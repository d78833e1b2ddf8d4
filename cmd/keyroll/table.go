package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"keyroll/internal/name"
)

// list prints items: JSON lines, or a table with the given columns.
func list[T any](e *env, items []T, columns string, row func(T) []any) error {
	if e.asJSON {
		enc := jsonTo(e.out)
		for _, item := range items {
			if err := enc.Encode(item); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(strings.ToUpper(columns), " ", "\t"))
	for _, item := range items {
		for i, cell := range row(item) {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, escapeText(fmt.Sprint(cell)))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
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

// collectPages collects the items of every page of a list.
func collectPages[T any](page func(after string) ([]T, string, error)) ([]T, error) {
	var items []T
	for after := ""; ; {
		more, next, err := page(after)
		if err != nil {
			return nil, err
		}
		items = append(items, more...)
		if next == "" {
			return items, nil
		}
		after = next
	}
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

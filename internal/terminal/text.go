package terminal

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

// Fields prints "name: value" lines, aligned.
func Fields(w io.Writer, pairs ...any) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(t, "%v:\t%s\n", pairs[i], Escape(fmt.Sprint(pairs[i+1])))
	}
	t.Flush()
}

// Escape escapes control characters, so that text from elsewhere can go to a terminal.
func Escape(s string) string { return name.Escape(s, "") }

// EscapeLines is Escape for a text that may have several lines.
func EscapeLines(s string) string { return name.Escape(s, "\n\t") }

// NewEncoder returns an encoder to w of JSON whose control characters are escaped for a
// terminal.
func NewEncoder(w io.Writer) *json.Encoder { return json.NewEncoder(escaped{w}) }

type escaped struct{ io.Writer }

// Write relies on json.Encoder, which passes whole values.
func (e escaped) Write(p []byte) (int, error) {
	if _, err := io.WriteString(e.Writer, name.EscapeJSON(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Time prints a time in the local time zone, "-" if it is zero.
func Time(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// Size prints a number of bytes in binary units (IEC 80000-13).
func Size(n int64) string {
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

// ByteSize is a number of bytes as people write it: 4096, 64KiB, 1GiB.
type ByteSize int64

// UnmarshalText is called by kong when flags are read.
func (b *ByteSize) UnmarshalText(text []byte) error {
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
	*b = ByteSize(n * unit)
	return nil
}

// Count says how many there are of what one names.
func Count(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

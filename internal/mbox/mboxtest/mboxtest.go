// Package mboxtest generates mailboxes for tests, and splits them by a second
// implementation of the format.
package mboxtest

import (
	"io"
	"regexp"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// The lines with which messages begin.
const (
	Ann = "From ann@contoso.com Mon Jan  5 10:00:00 2026\n"
	Bob = "From bob@contoso.com Tue Jan  6 11:00:00 2026\n"
)

// ByteOrderMark is that of UTF-8.
const ByteOrderMark = "\xef\xbb\xbf"

const bom = ByteOrderMark

var (
	asctime = regexp.MustCompile(`^From .*(Mon|Tue|Wed|Thu|Fri|Sat|Sun) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d+ \d\d:\d\d:\d\d( [+]\d+)? \d{4}\r?\n?$`)
	field   = regexp.MustCompile(`^[!-9;-~]{1,100}[ \t]*:`)
)

// Split is a second implementation of the format auto, over all lines at once and
// without Content-Length.
func Split(mbox string) (messages []string) {
	lines := slices.Collect(strings.Lines(mbox))
	from := func(i int) bool { return strings.HasPrefix(strings.TrimPrefix(lines[i], bom), "From ") }
	short := func(i int) bool { return len(strings.TrimPrefix(lines[i], bom)) <= 1000 }
	dated := func(i int) bool { // in a line of at most 1,000 bytes
		line := strings.TrimPrefix(lines[i], bom)
		return len(line) <= 1000 && asctime.MatchString(line)
	}
	first := 0
	for first < len(lines) && strings.Trim(strings.TrimPrefix(lines[first], bom), "\r\n") == "" {
		first++
	}
	header := true
	for i, line := range lines {
		empty := i > first && strings.Trim(lines[i-1], "\r\n") == "" && !strings.HasPrefix(lines[i-1], "\r\r")
		fieldFollows := i+1 < len(lines) && short(i) && field.MatchString(lines[i+1][:min(len(lines[i+1]), 1103-len(line))])
		switch {
		case i == 0, i > first && from(i) && short(i) && (dated(i) && (empty || !header && fieldFollows) || !dated(i) && empty && fieldFollows && !dated(first)):
			messages = append(messages, "")
			header = true
		case i > first && !(field.MatchString(line) || from(i) && !strings.HasPrefix(line, bom) || strings.HasPrefix(line, ">From ") || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")):
			header = false
		}
		messages[len(messages)-1] += line
	}
	return messages
}

// Mailboxes generates mboxes with many irregularities.
func Mailboxes() *rapid.Generator[string] {
	line := rapid.OneOf(
		rapid.SampledFrom([]string{"\n", "\n", "\n", "\r\n", "\r\n", "\r", "From ", "From a@b Mon Jan  1 00:00:00 2024\n", "From - Mon Jan 01 00:00:00 2024\r\n", "From x\r\n", "From where I stand\n",
			">From y\n", ">>From z\n", "from x\n", " From x\n", "Subject: s\n", "Subject: =?utf-8?q?caf=C3=A9?=\r\n\tfolded\r\n", "Status: RO\n", "body\n", "\x00\n", "\xff\xfe\n", "no end", bom,
			"From 12@xxx Mon Jan 01 00:00:00 +0000 2024\nTo: x\n",
			"\n\nFrom " + strings.Repeat("h", 993) + "\nA: b\n", "\n\nFrom " + strings.Repeat("h", 995) + "\nA: b\n", "A" + strings.Repeat(" ", 99) + ":\n",
			"\n\nFrom " + strings.Repeat("h", 960) + " Mon Jan  1 00:00:00 2024\n", "\n\nFrom " + strings.Repeat("h", 980) + " Mon Jan  1 00:00:00 2024\n"}),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "junk")) }),
		// Filler that makes the next lines cross the end of the reader's buffer.
		rapid.Custom(func(t *rapid.T) string {
			return strings.Repeat("h", rapid.IntRange(65_400, 65_560).Draw(t, "long")) + rapid.SampledFrom([]string{"", "\n", "\r\n", "\n\n", "\r\n\r\n"}).Draw(t, "end")
		}),
	)
	return rapid.Custom(func(t *rapid.T) string {
		lines := rapid.SliceOfN(line, 0, 40).Draw(t, "lines")
		begin := rapid.SampledFrom([]string{"From ", "From a@b Mon Jan  1 00:00:00 2024\n", bom + "From ", "\n\r\nFrom ", bom + "\nFrom - Mon Jan  1 00:00:00 2024\nX: y\n"}).Draw(t, "begin")
		return begin + strings.Join(lines, "")
	})
}

// Endless reads the same line over and over, up to Left bytes.
type Endless struct {
	Line string
	Left int
}

func (e *Endless) Read(p []byte) (int, error) {
	if e.Left <= 0 {
		return 0, io.EOF
	}
	n := copy(p, e.Line)
	e.Left -= n
	return n, nil
}

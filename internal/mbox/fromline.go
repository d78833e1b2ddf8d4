package mbox

import (
	"bytes"
	"regexp"
	"sync"
)

// fromLine is the beginning of the line that starts a message of an mbox (RFC 4155,
// appendix A).
const fromLine = "From "

const (
	// maxFromLine is the longest line, in bytes, that starts a message, unless it is
	// the first line of the mbox: RFC 5322 section 2.1.1 allows no longer lines.
	maxFromLine = 1000
	// maxFieldName is longer than any name of a header field.
	maxFieldName = 100
	// maxWindow is how much of an mbox decides whether a line starts a message: the line,
	// and the beginning of the next one.
	maxWindow = len(byteOrderMark) + maxFromLine + maxFieldName
)

// The date of a From_ line, as mutt reads it: that of asctime, optionally with one or
// two zones before the year.
const fromDate = `(?:(?:mon|tue|wed|thu|fri|sat|sun)[ \t]+){1,2}` +
	`(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ \t]+` +
	`(?:0?[1-9]|[12][0-9]|3[01])[ \t]+` +
	`(?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::(?:[0-5][0-9]|60))?[ \t]+` +
	`(?:[a-z+-]\S*[ \t]+(?:[a-z]\S*[ \t]+)?)?` +
	`[0-9]{2,4}`

// fromForms are the forms of a From_ line. Either the sender is one word, or two
// words with "at" between them as pipermail writes them, or quoted, or missing, and
// any text may follow the date; or the sender is any text, and nothing follows the date.
var fromForms = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)^From[ \t]+(?:` +
		`(?:(?:[^ \t"]+|"[^"]*"[^ \t"]*)+[ \t]+(?:at[ \t]+\S+[ \t]+)?)?` + fromDate + `(?:[ \t]|$)` +
		`|[^ \t].*[ \t]` + fromDate + `[ \t]*$)`)
})

// isFromLine reports whether a line that begins with "From " has a sender and a
// date; such a line in the text of a message hardly ever does.
func isFromLine(line []byte) bool {
	return len(line) <= maxFromLine && fromForms().Match(bytes.TrimRight(line, "\r\n"))
}

// isField reports whether a line begins as a header field does (RFC 5322,
// section 2.2, and spaces before the colon as in 4.5).
func isField(line []byte) bool {
	i := 0
	for ; i < len(line) && i < maxFieldName && '!' <= line[i] && line[i] <= '~' && line[i] != ':'; i++ {
	}
	return i > 0 && bytes.HasPrefix(bytes.TrimLeft(line[i:], " \t"), []byte(":"))
}

// firstLine returns the first line with its line end, and the bytes after it. A line
// without a line end is the last one, or truncated.
func firstLine(b []byte) (line, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i+1], b[i+1:]
	}
	return b, nil
}

// isEmptyLine reports whether a line consists of its line end only.
func isEmptyLine(line []byte) bool {
	return string(line) == "\n" || string(line) == "\r\n"
}

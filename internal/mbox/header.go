package mbox

import (
	"iter"
	"mime"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
)

// Summary is what a list shows of a message: the fields of its header that can be
// read. A malformed message shows fewer and is still a message.
type Summary struct {
	Subject string    `json:"subject,omitempty"`
	From    string    `json:"from,omitempty"`
	Date    time.Time `json:"date,omitzero"`
	Flags   string    `json:"flags,omitempty"` // see readFlags
}

const (
	// MaxHeader is how much of a message is searched for header fields, in bytes.
	MaxHeader = 64 << 10
	// maxText is the longest text that is shown, in bytes, as RFC 5322 section
	// 2.1.1 limits a line.
	maxText = 998
	// maxFlags is more letters than mail programs have flags.
	maxFlags = 32
)

// ReadSummary reads the header at the beginning of a message. If a field occurs twice,
// the first one counts.
func ReadSummary(message string) Summary {
	fields := make(map[string]string)
	for name, value := range headerFields(message) {
		if _, twice := fields[name]; !twice {
			fields[name] = value
		}
	}
	return Summary{
		Subject: readText(fields["subject"]),
		From:    readText(fields["from"]),
		Date:    readDate(fields["date"]),
		Flags:   readFlags(fields),
	}
}

// wantedFields are the header fields that contribute to a list.
var wantedFields = map[string]bool{"subject": true, "from": true, "date": true, "status": true, "x-status": true,
	"x-mozilla-status": true, "x-mozilla-status2": true, "x-gmail-labels": true}

// maxWantedName is the length of the longest name in wantedFields.
const maxWantedName = len("x-mozilla-status2")

// headerFields yields the wanted fields, names in lower case and values with
// their folds, up to the empty line. It skips lines that are not fields.
func headerFields(message string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		var name string
		var value strings.Builder
		for line := range strings.Lines(message) {
			line = strings.TrimRight(line, "\r\n")
			if line == "" {
				break
			}
			if line[0] == ' ' || line[0] == '\t' {
				value.WriteString(line)
				continue
			}
			if wantedFields[name] && !yield(name, value.String()) {
				return
			}
			before, after, found := strings.Cut(line, ":")
			name = ""
			if before = strings.TrimRight(before, " \t"); found && len(before) <= maxWantedName {
				name = strings.ToLower(before)
			}
			value.Reset()
			value.WriteString(after)
		}
		if wantedFields[name] {
			yield(name, value.String())
		}
	}
}

var wordDecoder = mime.WordDecoder{CharsetReader: charset.Reader}

// readText decodes encoded words (RFC 2047) and replaces what a terminal cannot
// show. Words in an unknown charset are kept as they are.
func readText(value string) string {
	if text, err := wordDecoder.DecodeHeader(value); err == nil {
		value = text
	}
	value = strings.Map(func(r rune) rune {
		if r == '\t' || r == '\r' || r == '\n' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, strings.TrimSpace(value))
	if len(value) <= maxText {
		return value
	}
	cut := maxText
	for !utf8.RuneStart(value[cut]) {
		cut--
	}
	return value[:cut]
}

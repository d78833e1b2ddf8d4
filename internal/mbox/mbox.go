// Package mbox reads mailboxes in the mbox format: it splits them into their messages,
// and reads the fields of a message that a list shows.
//
// Its input is written by strangers. No byte is removed, changed or unquoted, memory does
// not grow with the size of a mailbox or a message, and no input makes it fail except one
// that is not an mbox. Start reading at Reader.
package mbox

import (
	"bytes"
	"cmp"
	"io"
	"strconv"

	"keyroll/api"
	"keyroll/internal/fail"
)

// Reader splits an mbox into its messages in constant memory. No byte is removed,
// changed or unquoted: the concatenated messages are the mbox. Lines end in LF or
// CRLF; the last line may have no line end. A byte order mark and empty lines may
// precede the first message, and are part of it.
//
// A line that begins with "From " starts a message
//   - as the first line;
//   - with a sender and a date, as mutt requires them: always after an empty line, and
//     without one if it is not in the header of a message and a header field follows;
//   - without them after an empty line, if a header field follows and the first
//     line of the mbox has no sender and date either.
//
// It does not start one before the end of the message according to Content-Length,
// if another such line or the end of the mbox is there. api.MailFormat documents how
// the other formats differ.
type Reader struct {
	in     *lookahead
	format api.MailFormat
	count  Count

	offset int64 // of the next byte in the mbox
	lead   int   // bytes of the current message before its "From " line
	ended  bool  // the current message has been read to its end
	plain  bool  // the mbox's first line has no sender and date

	lineLen  int    // bytes of the current line that have been read; 2 means 2 or more
	first    byte   // of the current line
	empty    bool   // the previous line is empty
	opening  int    // unread bytes up to the end of the message's "From "
	header   bool   // the current line is in the header of the message
	length   int64  // its Content-Length; 0: there is none, or it is known to be wrong
	body     int64  // offset of its body
	trusted  bool   // length is known to be correct
	lastRead []byte // the last bytes before offset, maxGap at most
}

// Count counts the messages of an mbox and its peculiarities.
type Count struct {
	Messages    int64
	NoEmptyLine int64 // messages, except the first, without an empty line before them
	FromText    int64 // lines that begin with "From " and start no message, in messages without a correct Content-Length
}

const (
	// mboxBuffer is how much of an mbox is read ahead, in bytes.
	mboxBuffer = 64 << 10
	// maxLookahead is how far ahead the end of a Content-Length may be to be verified.
	maxLookahead = 8 << 20
	// byteOrderMark is that of UTF-8.
	byteOrderMark = "\xef\xbb\xbf"
)

// New returns a reader of an mbox.
func New(r io.Reader, format api.MailFormat) *Reader {
	return &Reader{in: newLookahead(r, mboxBuffer), format: format, ended: true}
}

// Count returns what has been counted so far.
func (m *Reader) Count() Count { return m.count }

// Offset returns the offset of the next byte in the mbox.
func (m *Reader) Offset() int64 { return m.offset }

// Lead returns how many bytes of the current message are before its "From " line.
func (m *Reader) Lead() int { return m.lead }

// More skips the rest of the current message and reports whether there is another
// one. It fails InvalidArgument if the first bytes are not those of an mbox; no
// bytes at all are an mbox without messages.
func (m *Reader) More() (bool, error) {
	if !m.ended {
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{m}); err != nil {
			return false, err
		}
	}
	start := m.in.peek(len(fromLine))
	if len(start) == 0 {
		return false, m.in.failure()
	}
	if m.offset > 0 {
		return true, nil
	}
	line, _ := firstLine(m.in.peek(m.prefixLen() + maxFromLine)[m.prefixLen():])
	if !bytes.HasPrefix(line, []byte(fromLine)) {
		if err := m.in.failure(); err != nil {
			return false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		return false, fail.New(api.InvalidArgument, "this is not an mbox: its first line begins with %q, not with %q", line[:min(len(line), maxQuoted)], fromLine)
	}
	m.plain = !isFromLine(line)
	return true, nil
}

// prefixLen returns the number of bytes before the "From " line of the message that
// begins at offset: those of a byte order mark, and of empty lines before the first.
func (m *Reader) prefixLen() int {
	start := m.in.peek(len(byteOrderMark))
	n := 0
	if bytes.HasPrefix(start, []byte(byteOrderMark)) {
		n = len(byteOrderMark)
	}
	if m.offset == 0 {
		start = m.in.peek(mboxBuffer)
		n += len(start[n:]) - len(bytes.TrimLeft(start[n:], "\r\n"))
	}
	return n
}

// Next advances to the next message, and returns io.EOF if there is none.
func (m *Reader) Next() error {
	more, err := m.More()
	if err == nil && !more {
		err = io.EOF
	}
	if err != nil {
		return err
	}
	m.count.Messages++
	if m.offset > 0 && !m.empty {
		m.count.NoEmptyLine++
	}
	m.ended, m.empty, m.lineLen, m.first = false, false, 2, fromLine[0]
	m.lead = m.prefixLen()
	m.opening = m.lead + len(fromLine)
	m.header, m.length, m.body, m.trusted = true, 0, 0, false
	return nil
}

// maxQuoted is how much of a file that is not an mbox an error quotes, in bytes.
const maxQuoted = 24

// Read reads from the current message and returns io.EOF at its end.
func (m *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if m.ended {
		return 0, io.EOF
	}
	if m.lineLen == 0 {
		opens, err := m.newLine()
		if opens || err != nil {
			m.ended = true
			return 0, cmp.Or(err, io.EOF)
		}
	}
	window := m.in.peek(1)
	if len(window) == 0 {
		m.ended = true
		return 0, cmp.Or(m.in.failure(), m.checkEnd(), io.EOF)
	}
	window = window[:min(len(window), len(p))]
	if m.opening > 0 {
		window = window[:min(len(window), m.opening)]
		m.opening -= len(window)
	} else {
		window = window[:m.messageBytes(window)]
	}
	copy(p, window)
	m.in.skip(len(window))
	m.offset += int64(len(window))
	m.lastRead = append(m.lastRead, window[max(0, len(window)-maxGap):]...)
	m.lastRead = append(m.lastRead[:0], m.lastRead[max(0, len(m.lastRead)-maxGap):]...)
	return len(window), nil
}

// newLine examines the next line and reports whether it starts the next message.
func (m *Reader) newLine() (opens bool, err error) {
	next := m.in.peek(maxWindow)
	// The decision must not depend on how much has been read ahead.
	if line := bytes.TrimPrefix(next[:min(len(next), maxWindow)], []byte(byteOrderMark)); bytes.HasPrefix(line, []byte(fromLine)) {
		if opens, err := m.startsMessage(line); opens || err != nil {
			return opens, err
		}
	}
	if m.header && len(next) > 0 {
		m.headerLine(next)
	}
	return false, nil
}

// startsMessage reports whether a line that begins with "From " starts a message.
func (m *Reader) startsMessage(line []byte) (bool, error) {
	if m.format == api.MboxRD {
		return true, nil
	}
	if m.length > 0 && !m.header {
		switch end := m.body + m.length; {
		case m.onlyLineEndsSince(end):
			return true, nil
		case m.offset < end && m.endsAt(end):
			return false, nil
		case m.format == api.MboxCL2:
			return false, m.wrongLength()
		}
		m.length = 0
	}
	line, next := firstLine(line)
	switch whole := isFromLine(line); {
	case len(line) > maxFromLine:
	case whole && (m.empty || !m.header && isField(next)), !whole && m.plain && m.empty && isField(next):
		return true, nil
	}
	m.count.FromText++
	return false, nil
}

// maxGap is how many bytes there may be between the end according to Content-Length
// and the next message: the last line's end, if it is not counted, and an empty
// line, in CRLF.
const maxGap = 4

// onlyLineEndsSince reports whether there are only line ends between end and offset.
func (m *Reader) onlyLineEndsSince(end int64) bool {
	gap := m.offset - end
	return 0 <= gap && gap <= int64(len(m.lastRead)) && isGap(m.lastRead[len(m.lastRead)-int(gap):])
}

func isGap(b []byte) bool { return len(bytes.TrimLeft(b, "\r\n")) == 0 }

// endsAt reports whether the current message ends at end, which is after offset.
func (m *Reader) endsAt(end int64) bool {
	if m.trusted || m.format == api.MboxCL2 {
		return true
	}
	if end-m.offset > maxLookahead {
		return false
	}
	at := int(end - m.offset)
	next := m.in.peek(at + maxGap + len(fromLine))
	if len(next) < at {
		return false
	}
	before, next := next[:at], next[at:]
	gap := min(len(next)-len(bytes.TrimLeft(next, "\r\n")), maxGap)
	begins := bytes.HasSuffix(before, []byte("\n")) || bytes.HasSuffix(next[:gap], []byte("\n"))
	next = next[gap:]
	m.trusted = len(next) == 0 || begins && bytes.HasPrefix(next, []byte(fromLine))
	return m.trusted
}

// checkEnd is called at the end of the mbox and checks the last Content-Length.
func (m *Reader) checkEnd() error {
	if m.header {
		m.header, m.body = false, m.offset
	}
	if m.format == api.MboxCL2 && m.length > 0 && !m.onlyLineEndsSince(m.body+m.length) {
		return m.wrongLength()
	}
	return nil
}

func (m *Reader) wrongLength() error {
	return fail.New(api.InvalidArgument, "the Content-Length of message %d, %d bytes, leads neither to a line that begins with %q nor to the end of the mbox",
		m.count.Messages, m.length, fromLine).WithHint("the format auto ignores a Content-Length that is wrong")
}

// headerLine examines the next line, which is in a header or the first one after it.
// Like mutt, it treats a From_ line in a header as a part of the header.
func (m *Reader) headerLine(next []byte) {
	line, _ := firstLine(next)
	switch {
	case isEmptyLine(line):
		m.header, m.body = false, m.offset+int64(len(line))
	case line[0] == ' ', line[0] == '\t', bytes.HasPrefix(bytes.TrimPrefix(line, []byte(">")), []byte(fromLine)):
	case !isField(line):
		m.header, m.body = false, m.offset
	case m.length == 0:
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(bytes.TrimSpace(name), []byte("Content-Length")) {
			m.length = max(0, parseLength(value))
		}
	}
}

// parseLength returns the value of a Content-Length field, and 0 if it is not a length.
func parseLength(value []byte) int64 {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 62)
	if err != nil {
		return 0
	}
	return n
}

// messageBytes returns how many bytes of window, at least one, certainly belong to the
// message. It stops before a line that newLine has to examine.
func (m *Reader) messageBytes(window []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(window[at:], '\n')
		if i < 0 {
			m.recordLine(window[at:])
			return len(window)
		}
		m.recordLine(window[at : at+i])
		at += i + 1
		m.empty = m.lineLen == 0 || m.lineLen == 1 && m.first == '\r'
		m.lineLen = 0
		rest := window[at:]
		if m.header || len(rest) < len(fromLine) || bytes.HasPrefix(rest, []byte(fromLine)) || bytes.HasPrefix(rest, []byte(byteOrderMark)) {
			return at
		}
	}
}

// recordLine records more bytes of the current line.
func (m *Reader) recordLine(b []byte) {
	if m.lineLen == 0 && len(b) > 0 {
		m.first = b[0]
	}
	m.lineLen = min(m.lineLen+len(b), 2)
}

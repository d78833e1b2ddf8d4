package content

import (
	"bufio"
	"bytes"
	"io"

	"keyroll/api"
	"keyroll/internal/fail"
)

// fromLine is how the line begins that opens a message of an mbox (RFC 4155,
// appendix A).
const fromLine = "From "

// mbox splits an mbox into its messages in constant memory. A message begins
// with a line that begins with "From ", at the start of the mbox or after an
// empty line, and goes on to the next one. Not a byte is lost, changed or
// unquoted: the messages, one after the other, are the mbox. Lines end in LF or
// CRLF; the last need not end.
type mbox struct {
	r       *bufio.Reader
	ended   bool // the message at hand
	maybe   bool // an empty line ends here: the next bytes may open a message
	lineLen int  // bytes of the line at hand that have been read, as far as told apart: 0, 1, 2
	first   byte // of the line at hand
}

// mboxBuffer is how much of an mbox is read ahead, in bytes.
const mboxBuffer = 64 << 10

func newMbox(r io.Reader) *mbox {
	return &mbox{r: bufio.NewReaderSize(r, mboxBuffer), ended: true}
}

// More reports whether there is another message, past what is left of the one
// at hand. It fails InvalidArgument when the first bytes are not those of an
// mbox; no bytes at all are an mbox without messages.
func (m *mbox) More() (bool, error) {
	if !m.ended {
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{m}); err != nil {
			return false, err
		}
	}
	start, err := m.r.Peek(len(fromLine))
	switch {
	case err != nil && err != io.EOF:
		return false, err
	case len(start) == 0:
		return false, nil
	case string(start) != fromLine: // only before the first message
		line, _ := m.r.Peek(shownOfMbox)
		return false, fail.New(api.InvalidArgument, "this is no mbox: line 1 begins with %q, not with %q", firstLine(line), fromLine)
	}
	return true, nil
}

// Next goes to the next message, and returns io.EOF when there is none.
func (m *mbox) Next() error {
	more, err := m.More()
	if err == nil && !more {
		err = io.EOF
	}
	if err == nil {
		m.ended, m.maybe, m.lineLen = false, false, 0
	}
	return err
}

// shownOfMbox is how much of what is no mbox an error shows, in bytes.
const shownOfMbox = 24

func firstLine(b []byte) []byte {
	if i := bytes.IndexAny(b, "\r\n"); i >= 0 {
		return b[:i]
	}
	return b
}

// Read reads from the message at hand and returns io.EOF at its end.
func (m *mbox) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if m.ended {
		return 0, io.EOF
	}
	if m.maybe {
		m.maybe = false
		// Fewer bytes than asked for are the last ones, or come before an error,
		// which the next read returns.
		if start, _ := m.r.Peek(len(fromLine)); string(start) == fromLine {
			m.ended = true
			return 0, io.EOF
		}
	}
	window, err := m.window(len(p))
	if err != nil {
		m.ended = err == io.EOF
		return 0, err
	}
	n := copy(p, window[:m.stretch(window)])
	_, err = m.r.Discard(n)
	return n, err
}

// window returns what has been read ahead, from 1 to limit bytes of it.
func (m *mbox) window(limit int) ([]byte, error) {
	if _, err := m.r.Peek(1); err != nil {
		return nil, err
	}
	return m.r.Peek(min(limit, m.r.Buffered()))
}

// stretch returns how many bytes of window, at least one, belong to the message
// for certain. It ends behind an empty line where a message follows or may.
func (m *mbox) stretch(window []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(window[at:], '\n')
		if i < 0 {
			m.extend(window[at:])
			return len(window)
		}
		m.extend(window[at : at+i])
		at += i + 1
		empty := m.lineLen == 0 || m.lineLen == 1 && m.first == '\r'
		m.lineLen = 0
		if !empty {
			continue
		}
		if rest := window[at:]; len(rest) < len(fromLine) || string(rest[:len(fromLine)]) == fromLine {
			m.maybe = true
			return at
		}
	}
}

// extend notes more bytes of the line at hand.
func (m *mbox) extend(b []byte) {
	if m.lineLen == 0 && len(b) > 0 {
		m.first = b[0]
	}
	m.lineLen = min(m.lineLen+len(b), 2)
}

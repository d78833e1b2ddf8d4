package mbox

import "io"

// lookahead reads ahead, as bufio.Reader does, but as far as peek requires: its
// buffer grows for that, and shrinks once it is empty.
type lookahead struct {
	r       io.Reader
	buf     []byte // read, and not yet delivered from at on
	at      int
	err     error // of r; it is not read again
	initial int   // initial size of the buffer, in bytes
}

func newLookahead(r io.Reader, size int) *lookahead {
	return &lookahead{r: r, buf: make([]byte, 0, size), initial: size}
}

// peek returns at least n of the next bytes, and fewer only at the end or before
// the error that failure returns.
func (l *lookahead) peek(n int) []byte {
	for len(l.buf)-l.at < n && l.err == nil {
		l.read(n)
	}
	return l.buf[l.at:]
}

// read reads more, with space for n bytes from at on.
func (l *lookahead) read(n int) {
	switch rest := l.buf[l.at:]; {
	case l.at+n > cap(l.buf) && n > cap(l.buf)/2:
		l.buf = append(make([]byte, 0, 2*n), rest...) // half of it is free before bytes are moved again
		l.at = 0
	case len(rest) == 0 && cap(l.buf) > l.initial && n <= l.initial:
		l.buf, l.at = make([]byte, 0, l.initial), 0
	case len(rest) == 0 || l.at+n > cap(l.buf):
		l.buf, l.at = l.buf[:copy(l.buf, rest)], 0
	}
	for range 100 { // as often as bufio lets a reader return nothing
		space := l.buf[len(l.buf):cap(l.buf)]
		var more int
		more, l.err = l.r.Read(space)
		l.buf = l.buf[:len(l.buf)+more]
		if more > 0 || l.err != nil {
			return
		}
	}
	l.err = io.ErrNoProgress
}

// failure returns why nothing follows what peek returns: nil at the end, or if
// more may follow.
func (l *lookahead) failure() error {
	if l.err == io.EOF {
		return nil
	}
	return l.err
}

// skip delivers n bytes that peek returned.
func (l *lookahead) skip(n int) { l.at += n }

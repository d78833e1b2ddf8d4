package content

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
)

// transfer reads the content of a request. It fails Truncated if the content ends
// before its stated length or is interrupted, and InvalidArgument if it is longer.
type transfer struct {
	ended  func() error // returns an error once the request has been cancelled
	r      io.Reader
	stated int64 // negative: not stated
	read   int64
	err    error // of the last read; every later read returns it
}

func newTransfer(ctx context.Context, r io.Reader, stated int64) *transfer {
	return &transfer{ended: ctx.Err, r: r, stated: stated}
}

func (t *transfer) Read(p []byte) (int, error) {
	if t.err == nil {
		t.err = t.ended()
	}
	if t.err != nil {
		return 0, t.err
	}
	n, err := t.r.Read(p)
	t.read += int64(n)
	switch {
	case t.stated >= 0 && t.read > t.stated:
		n, err = 0, fail.New(api.InvalidArgument, "the transfer is longer than its stated length of %d bytes", t.stated)
	case t.stated >= 0 && t.read < t.stated && (err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)):
		err = fail.New(api.Truncated, "the transfer ended after %d of %d bytes", t.read, t.stated)
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = fail.New(api.Truncated, "the transfer was interrupted after %d bytes", t.read)
	}
	t.err = err
	return n, err
}

// failure returns the error of the transfer's last read if it failed, and otherwise
// err: the code that read the transfer may have wrapped the error in its own text.
func (t *transfer) failure(err error) error {
	if t.err != nil && t.err != io.EOF {
		return t.err
	}
	return err
}

// sealing reads plain and delivers its sealed form, one segment at a time.
type sealing struct {
	plain  io.Reader
	writer io.WriteCloser // seals into sealed
	sealed bytes.Buffer
	buf    *[]byte
	used   int   // bytes of buf that have held plaintext
	size   int64 // bytes of plaintext read
	err    error
}

func newSealing(plain io.Reader, key *envelope.Key, ec envelope.BlobContext) *sealing {
	s := &sealing{plain: plain, buf: buffers.Get().(*[]byte)}
	s.writer = envelope.NewWriter(&s.sealed, key, ec)
	return s
}

func (s *sealing) Read(p []byte) (int, error) {
	for s.sealed.Len() == 0 {
		if s.err != nil {
			return 0, s.err
		}
		n, err := s.plain.Read(*s.buf)
		s.size += int64(n)
		s.used = max(s.used, n)
		if _, err := s.writer.Write((*s.buf)[:n]); err != nil {
			s.err = err
			continue
		}
		if err == io.EOF {
			if closeErr := s.writer.Close(); closeErr != nil {
				err = closeErr
			}
		}
		s.err = err
	}
	return s.sealed.Read(p)
}

// release clears the plaintext buffer and returns it to the pool.
func (s *sealing) release() {
	clear((*s.buf)[:s.used])
	buffers.Put(s.buf)
}

// buffers hold plaintext in transit. They are cleared before they are returned.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, envelope.SegmentSize)
	return &b
}}

// copyContent copies r to w until the end of r. A failure of r is returned as
// readErr, one of w as writeErr; the end of ctx is returned as readErr.
func copyContent(ctx context.Context, w io.Writer, r io.Reader) (n int64, readErr, writeErr error) {
	buf := buffers.Get().(*[]byte)
	used := 0
	defer func() {
		clear((*buf)[:used])
		buffers.Put(buf)
	}()
	for {
		if err := ctx.Err(); err != nil {
			return n, err, nil
		}
		m, err := r.Read(*buf)
		used = max(used, m)
		if m > 0 {
			if _, err := w.Write((*buf)[:m]); err != nil {
				return n, nil, err
			}
			n += int64(m)
		}
		if err == io.EOF {
			return n, nil, nil
		}
		if err != nil {
			return n, err, nil
		}
	}
}

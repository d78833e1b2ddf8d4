package items

import (
	"bytes"
	"context"
	"io"
	"sync"

	"keyroll/internal/envelope"
)

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

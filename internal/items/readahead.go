package items

import (
	"context"
	"io"
)

// readAheadFrom is the length of content, in bytes, from which reading ahead is worth
// a goroutine.
const readAheadFrom = 1 << 20

// readResult is what one read delivered.
type readResult struct {
	buf *[]byte
	n   int
	err error
}

// copyReadAhead is copyContent for long content: it reads the next piece while it
// writes one. When it returns, no goroutine reads r any more.
func copyReadAhead(ctx context.Context, w io.Writer, r io.Reader) (n int64, readErr, writeErr error) {
	const pieces = 2
	free, full := make(chan *[]byte, pieces), make(chan readResult, pieces)
	used := make([]*[]byte, pieces)
	for i := range used {
		used[i] = buffers.Get().(*[]byte)
		free <- used[i]
	}
	go func() {
		defer close(full)
		for buf := range free {
			f := readResult{buf: buf}
			f.n, f.err = r.Read(*buf)
			full <- f
			if f.err != nil {
				return
			}
		}
	}()
	defer func() {
		close(free)
		for range full { // until the reading goroutine has ended
		}
		for _, buf := range used {
			clear(*buf)
			buffers.Put(buf)
		}
	}()
	for f := range full {
		if err := ctx.Err(); err != nil {
			return n, err, nil
		}
		if _, err := w.Write((*f.buf)[:f.n]); err != nil {
			return n, nil, err
		}
		n += int64(f.n)
		if f.err == io.EOF {
			return n, nil, nil
		}
		if f.err != nil {
			return n, f.err, nil
		}
		free <- f.buf
	}
	return n, nil, nil
}

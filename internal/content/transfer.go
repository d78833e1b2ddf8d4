package content

import (
	"context"
	"errors"
	"io"

	"keyroll/api"
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

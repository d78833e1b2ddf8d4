package items

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"keyroll/internal/envelope"
)

var errFull = errors.New("full")

// limitedWriter accepts some bytes and then fails.
type limitedWriter struct{ left int }

func (n *limitedWriter) Write(p []byte) (int, error) {
	if n.left -= len(p); n.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// watchedReader reports whether it is being read.
type watchedReader struct {
	io.Reader
	done bool
}

func (w *watchedReader) Read(p []byte) (int, error) {
	if w.done {
		panic("read after the copy ended")
	}
	return w.Reader.Read(p)
}

func TestLongContentIsCopiedWholeAndFailuresAreReported(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 5*envelope.SegmentSize/16+1)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx             context.Context
		r               io.Reader
		w               io.Writer
		readErr, writes error
	}{
		"whole":             {t.Context(), bytes.NewReader(content), nil, nil, nil},
		"the reader fails":  {t.Context(), io.MultiReader(bytes.NewReader(content[:100<<10]), brokenReader{}), nil, errBroken, nil},
		"the writer fails":  {t.Context(), bytes.NewReader(content), &limitedWriter{100 << 10}, nil, errFull},
		"the caller leaves": {ended, bytes.NewReader(content), nil, context.Canceled, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if test.w == nil {
				test.w = &got
			}
			r := &watchedReader{Reader: test.r}
			_, readErr, writeErr := copyReadAhead(test.ctx, test.w, r)
			r.done = true // a race, were it still read
			if !errors.Is(readErr, test.readErr) || !errors.Is(writeErr, test.writes) {
				t.Errorf("read: %v, write: %v; want %v, %v", readErr, writeErr, test.readErr, test.writes)
			}
			if name == "whole" && !bytes.Equal(got.Bytes(), content) {
				t.Error("the copy differs")
			}
			for range 2 {
				if buf := buffers.Get().(*[]byte); !bytes.Equal(*buf, make([]byte, len(*buf))) {
					t.Error("a buffer was given back with plaintext in it")
				}
			}
		})
	}
}

var errBroken = errors.New("broken")

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

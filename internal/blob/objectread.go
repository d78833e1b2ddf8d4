package blob

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
)

// castagnoli is the polynomial of CRC-32C, for which processors have an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r *remote) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if n == 0 {
		_, err := r.Stat(ctx, name)
		return io.NopCloser(strings.NewReader("")), err
	}
	reading := &objectReader{ctx: ctx, store: r, name: name, off: off, want: n, whole: off == 0 && n < 0}
	if err := reading.open(); err != nil {
		return nil, err
	}
	return reading, nil
}

// objectReader reads an object. If a connection breaks, it continues on another one. The
// checksum of an object that is read from its beginning to its end is compared with
// the one it was stored with.
type objectReader struct {
	ctx   context.Context
	store *remote
	name  string
	off   int64
	want  int64 // bytes from off on; negative: all
	whole bool
	sum   uint32 // of the bytes read so far, if whole

	answer io.ReadCloser // nil: none is open
	is     object
	cancel context.CancelFunc
	timer  *time.Timer // cancels a read that takes too long
	end    error       // every later Read returns it
}

// Size is the length of the blob.
func (r *objectReader) Size() int64 { return r.is.size }

func (r *objectReader) doing() string { return "read blob " + r.name }

// open sends the request, and repeats it if necessary.
func (r *objectReader) open() error {
	for n := 1; ; n++ {
		if err := r.ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", r.doing(), err)
		}
		ctx, cancel := context.WithCancel(r.ctx)
		r.cancel, r.timer = cancel, time.AfterFunc(r.store.requestTimeout, cancel)
		answer, is, err := r.store.get(ctx, r.name, r.off, r.want)
		r.timer.Stop()
		if err == nil {
			r.answer, r.is = answer, is
			return nil
		}
		cancel()
		if r.store.grade(err) == pastEnd && r.ctx.Err() == nil {
			r.end = io.EOF
			return nil
		}
		if again, err := r.store.waitRetry(r.ctx, r.doing(), n, err); !again {
			return blobError(r.name, err)
		}
	}
}

func (r *objectReader) Read(p []byte) (int, error) {
	for broken := 0; ; {
		if r.end != nil {
			return 0, r.end
		}
		if len(p) == 0 {
			return 0, nil
		}
		if r.answer == nil {
			if r.end = r.open(); r.end != nil || r.answer == nil {
				continue
			}
		}
		r.timer.Reset(r.store.requestTimeout)
		n, err := r.answer.Read(p)
		r.timer.Stop()
		r.advance(p[:n])
		if err == nil {
			if n > 0 {
				return n, nil
			}
			continue
		}
		r.closeAnswer()
		switch {
		case r.complete():
			r.end = r.checkSum()
		case r.ctx.Err() != nil:
			r.end = fmt.Errorf("%s: %w", r.doing(), r.ctx.Err())
		case n == 0:
			if broken++; broken == tries {
				r.end = r.store.failure(r.doing(), temporary, err)
			}
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (r *objectReader) advance(p []byte) {
	r.off += int64(len(p))
	if r.want > 0 {
		r.want -= int64(len(p))
	}
	if r.whole {
		r.sum = crc32.Update(r.sum, castagnoli, p)
	}
}

// complete reports whether all requested bytes have been read.
func (r *objectReader) complete() bool { return r.off >= r.is.size || r.want == 0 }

// checkSum returns io.EOF, or Damaged if the checksum of a whole object differs from
// the stored one.
func (r *objectReader) checkSum() error {
	if r.whole && r.is.sum != nil && *r.is.sum != r.sum {
		return fail.New(api.Damaged, "%s: its checksum differs from the one it was stored with", r.doing())
	}
	return io.EOF
}

func (r *objectReader) closeAnswer() {
	if r.answer != nil {
		r.cancel()
		r.answer.Close()
		r.answer = nil
	}
}

func (r *objectReader) Close() error {
	r.closeAnswer()
	if r.end == nil {
		r.end = fmt.Errorf("%s: the reader is closed", r.doing())
	}
	return nil
}

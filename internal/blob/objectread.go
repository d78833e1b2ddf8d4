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
	reading := &reading{ctx: ctx, store: r, name: name, off: off, want: n, whole: off == 0 && n < 0}
	if err := reading.open(); err != nil {
		return nil, err
	}
	return reading, nil
}

// reading reads an object. If a connection breaks, it continues on another one. The
// checksum of an object that is read from its beginning to its end is compared with
// the one it was stored with.
type reading struct {
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
	late   *time.Timer // cancels a read that takes too long
	end    error       // every later Read returns it
}

// Size is the length of the blob.
func (r *reading) Size() int64 { return r.is.size }

func (r *reading) doing() string { return "read blob " + r.name }

// open sends the request, and repeats it if necessary.
func (r *reading) open() error {
	for n := 1; ; n++ {
		if err := r.ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", r.doing(), err)
		}
		ctx, cancel := context.WithCancel(r.ctx)
		r.cancel, r.late = cancel, time.AfterFunc(r.store.patience, cancel)
		answer, is, err := r.store.get(ctx, r.name, r.off, r.want)
		r.late.Stop()
		if err == nil {
			r.answer, r.is = answer, is
			return nil
		}
		cancel()
		if r.store.grade(err) == beyond && r.ctx.Err() == nil {
			r.end = io.EOF
			return nil
		}
		if again, err := r.store.again(r.ctx, r.doing(), n, err); !again {
			return of(r.name, err)
		}
	}
}

func (r *reading) Read(p []byte) (int, error) {
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
		r.late.Reset(r.store.patience)
		n, err := r.answer.Read(p)
		r.late.Stop()
		r.note(p[:n])
		if err == nil {
			if n > 0 {
				return n, nil
			}
			continue
		}
		r.drop()
		switch {
		case r.ended():
			r.end = r.compare()
		case r.ctx.Err() != nil:
			r.end = fmt.Errorf("%s: %w", r.doing(), r.ctx.Err())
		case n == 0:
			if broken++; broken == tries {
				r.end = r.store.failure(r.doing(), passing, err)
			}
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (r *reading) note(p []byte) {
	r.off += int64(len(p))
	if r.want > 0 {
		r.want -= int64(len(p))
	}
	if r.whole {
		r.sum = crc32.Update(r.sum, castagnoli, p)
	}
}

// ended reports whether all requested bytes have been read.
func (r *reading) ended() bool { return r.off >= r.is.size || r.want == 0 }

// compare returns io.EOF, or Damaged if the checksum of a whole object differs from
// the stored one.
func (r *reading) compare() error {
	if r.whole && r.is.sum != nil && *r.is.sum != r.sum {
		return fail.New(api.Damaged, "%s: its checksum differs from the one it was stored with", r.doing())
	}
	return io.EOF
}

func (r *reading) drop() {
	if r.answer != nil {
		r.cancel()
		r.answer.Close()
		r.answer = nil
	}
}

func (r *reading) Close() error {
	r.drop()
	if r.end == nil {
		r.end = fmt.Errorf("%s: the reader is closed", r.doing())
	}
	return nil
}

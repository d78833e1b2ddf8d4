package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
)

// objects is an object service as a remote store needs it: single requests, all of
// which may be repeated. token distinguishes a put from other puts of the same name.
type objects interface {
	// put stores an object unless there is one of the same name.
	put(ctx context.Context, name string, body []byte, token string) error
	// begin begins an upload in parts, all of which except the last have partSize
	// bytes; part adds the next part; end completes the object unless there is one of
	// the same name.
	begin(ctx context.Context, name, token string) (upload, error)
	part(ctx context.Context, u *upload, body []byte) error
	end(ctx context.Context, u *upload) error
	abandon(ctx context.Context, u *upload) error

	// get opens n bytes from off on, or with n < 0 all bytes from off on.
	get(ctx context.Context, name string, off, n int64) (io.ReadCloser, object, error)
	head(ctx context.Context, name string) (object, error)
	remove(ctx context.Context, name string) error
	// page lists at most most objects whose names begin with prefix, and returns from
	// where to list the next ones; next is empty at the end.
	page(ctx context.Context, prefix, from string, most int) (list []object, next string, err error)

	// grade classifies an error of the other methods, and line returns it as one line.
	grade(err error) grade
	oneLine(err error) string
	close()
}

// object is the metadata of an object as the service returns it.
type object struct {
	name  string
	size  int64
	token string
	sum   *uint32 // CRC-32C of all of it; nil: not known
}

// upload is an object that is being uploaded in parts.
type upload struct {
	name, token, id string
	parts           []storedPart
	sum             uint32 // CRC-32C of the parts so far
}

type storedPart struct {
	tag string
	sum uint32
}

// grade is the meaning of an error for a store.
type grade int

const (
	refused   grade = iota // a retry would not help
	temporary              // no answer, or one that may differ the next time
	missing                // there is no such object
	taken                  // there already is an object of this name
	denied                 // the credentials do not allow it
	full
	pastEnd // the range begins after the end
)

// partSize is the size of the parts of a big object. It is larger than a sealed blob
// of a file, so that such a blob is one request.
const partSize = 9 << 20

// A request is tried at most tries times, with pauses that double up to longestPauses
// times firstPause: some eight seconds in total for a service that refuses
// connections.
const (
	tries         = 8
	firstPause    = 100 * time.Millisecond
	longestPauses = 20
)

// requestTimeout is the timeout of a request without content, and of one read of an answer.
const requestTimeout = 10 * time.Second

// pageObjects is how many objects are listed at a time.
const pageObjects = 1000

// remote keeps each blob as an object of its name.
type remote struct {
	objects
	address  string // the store's address, for the operator
	identity string

	pause, requestTimeout time.Duration // firstPause and requestTimeout
	pageSize              int           // pageObjects
}

func newRemote(address string) *remote {
	return &remote{address: address, pause: firstPause, requestTimeout: requestTimeout, pageSize: pageObjects}
}

// newTransport returns the HTTP transport for a remote store.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true // sealed data cannot be compressed
	t.MaxIdleConnsPerHost = batchRequests
	return t
}

// timeout returns the timeout of a request with so many bytes: slower than 512 KiB/s it
// would hardly ever finish.
func (r *remote) timeout(bytes int) time.Duration {
	return r.requestTimeout + time.Duration(bytes>>19)*time.Second
}

// check fails unless the store responds, lists, accepts puts, and never overwrites an
// object. It reads the store's identity.
func (r *remote) check(ctx context.Context) error {
	doing := "open blob store " + r.address
	err := r.retry(ctx, doing, 0, func(ctx context.Context) error {
		_, _, err := r.page(ctx, MarkName, "", 1)
		return err
	})
	for range 2 {
		if err == nil {
			err = r.putObject(ctx, doing, MarkName, []byte(rand.Text()+"\n"))
		}
	}
	if err == nil {
		return fail.New(api.InvalidArgument, "%s: the service overwrites existing objects", doing).
			WithHint("use a service that honours the request header If-None-Match")
	}
	if fail.Is(err, api.AlreadyExists) {
		err = r.retry(ctx, doing, 0, func(ctx context.Context) error {
			mark, _, err := r.get(ctx, MarkName, 0, -1)
			if err != nil {
				return err
			}
			defer mark.Close()
			r.identity, err = readMark(mark)
			return err
		})
	}
	if err == nil {
		return nil
	}
	var g *graded
	var e *fail.Error
	if errors.As(err, &g) && errors.As(err, &e) { // the operator may see the whole error
		return fail.New(e.Code, "%s: %s", e.Detail, r.oneLine(g.err)).WithHint("%s", e.Hint)
	}
	return err
}

func (r *remote) Identity() string { return r.identity }

func (r *remote) Close() error {
	r.close()
	return nil
}

// retry sends a request, and repeats it while the error may be temporary, at most
// tries times.
func (r *remote) retry(ctx context.Context, doing string, bytes int, request func(ctx context.Context) error) error {
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		once, cancel := context.WithTimeout(ctx, r.timeout(bytes))
		err := request(once)
		cancel()
		if err == nil {
			return nil
		}
		if again, err := r.waitRetry(ctx, doing, n, err); !again {
			return err
		}
	}
}

// waitRetry waits after the n-th try for the next one, or returns why there is none.
func (r *remote) waitRetry(ctx context.Context, doing string, n int, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, fmt.Errorf("%s: %w", doing, ctx.Err())
	}
	grade := r.grade(err)
	if grade != temporary || n == tries {
		return false, r.failure(doing, grade, err)
	}
	pause := min(r.pause<<(n-1), longestPauses*r.pause)
	select {
	case <-ctx.Done():
		return false, fmt.Errorf("%s: %w", doing, ctx.Err())
	case <-time.After(pause/2 + mathrand.N(pause)):
		return true, nil
	}
}

// graded is an error with its grade, for callers further up.
type graded struct {
	grade grade
	text  string
	err   error
}

func (g *graded) Error() string { return g.text }
func (g *graded) Unwrap() error { return g.err }

func gradeOf(err error) grade {
	var g *graded
	if errors.As(err, &g) {
		return g.grade
	}
	return refused
}

// failure returns keyroll's error for an error of the service. The log shows the
// store's address and the service's message; a user, who may be of any tenant, does
// not see them.
func (r *remote) failure(doing string, grade grade, err error) error {
	cause := &graded{grade, r.address + ": " + r.oneLine(err), err}
	switch grade {
	case temporary:
		return fail.New(api.Unavailable, "%s: the blob store does not answer", doing).Because(cause).
			WithHint("keyroll's log names the blob store and its last answer; try again when it is back")
	case denied:
		return fail.New(api.Unavailable, "%s: the blob store denies keyroll access", doing).Because(cause).
			WithHint("keyroll's log names the blob store; give keyroll credentials and permissions for it as docs/object-storage.md says")
	case full:
		return fail.New(api.InsufficientStorage, "%s: the blob store has no space left; nothing was stored", doing).Because(cause).
			WithHint("free space in the blob store, which keyroll's log names; the same request then works without a restart")
	}
	return fail.New(api.Unavailable, "%s: the blob store rejects the request", doing).Because(cause).
		WithHint("keyroll's log names the blob store and its answer")
}

// blobError gives an error about one blob its code.
func blobError(name string, err error) error {
	switch gradeOf(err) {
	case missing:
		return notFound(name)
	case taken:
		return alreadyExists(name)
	}
	return err
}

func (r *remote) PutIfAbsent(ctx context.Context, name string, content io.Reader) (int64, error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	b, full, err := readObject(content)
	if err != nil {
		return 0, fmt.Errorf("put blob %s: %w", name, err)
	}
	defer b.release()
	if !full {
		return int64(len(b.bytes)), r.putObject(ctx, "put blob "+name, name, b.bytes)
	}
	return r.putParts(ctx, name, b, content)
}

// putObject stores an object by one request.
func (r *remote) putObject(ctx context.Context, doing, name string, body []byte) error {
	token, sent := rand.Text(), false
	return blobError(name, r.retry(ctx, doing, len(body), func(ctx context.Context) error {
		err := r.put(ctx, name, body, token)
		err = r.nilIfStored(ctx, name, token, sent, err)
		sent = true
		return err
	}))
}

// nilIfStored returns nil instead of err if the put failed only because an earlier
// try of it, whose answer was lost, has stored the object.
func (r *remote) nilIfStored(ctx context.Context, name, token string, sent bool, err error) error {
	if err == nil || !sent {
		return err
	}
	if g := r.grade(err); g != taken && g != missing {
		return err
	}
	o, failed := r.head(ctx, name)
	switch {
	case failed == nil && o.token == token:
		return nil
	case failed != nil && r.grade(failed) == temporary:
		return failed
	}
	return err
}

// putParts stores first followed by rest, one part after the other.
func (r *remote) putParts(ctx context.Context, name string, first *buffer, rest io.Reader) (size int64, err error) {
	doing := "put blob " + name
	var u upload
	err = r.retry(ctx, doing, 0, func(ctx context.Context) (err error) {
		u, err = r.begin(ctx, name, rand.Text())
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.requestTimeout)
			defer cancel()
			_ = r.abandon(ctx, &u) // otherwise the service's rule for unfinished uploads removes it
		}
	}()
	for full, body := true, first; ; {
		if len(body.bytes) > 0 {
			if err := r.retry(ctx, doing, len(body.bytes), func(ctx context.Context) error { return r.part(ctx, &u, body.bytes) }); err != nil {
				return 0, err
			}
			size += int64(len(body.bytes))
		}
		if !full {
			break
		}
		if full, err = body.fill(rest); err != nil {
			return 0, fmt.Errorf("%s: %w", doing, err)
		}
	}
	sent := false
	return size, blobError(name, r.retry(ctx, doing, 0, func(ctx context.Context) error {
		err := r.nilIfStored(ctx, name, u.token, sent, r.end(ctx, &u))
		sent = true
		return err
	}))
}

func (r *remote) Stat(ctx context.Context, name string) (size int64, err error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	err = r.retry(ctx, "read blob "+name, 0, func(ctx context.Context) error {
		o, err := r.head(ctx, name)
		size = o.size
		return err
	})
	return size, blobError(name, err)
}

func (r *remote) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := r.retry(ctx, "delete blob "+name, 0, func(ctx context.Context) error { return r.remove(ctx, name) })
	if gradeOf(err) == missing {
		return nil
	}
	return err
}

func (r *remote) List(ctx context.Context, prefix string, each func(name string, size int64) error) error {
	for from := ""; ; {
		var list []object
		var next string
		err := r.retry(ctx, "list blobs", 0, func(ctx context.Context) (err error) {
			list, next, err = r.page(ctx, prefix, from, r.pageSize)
			return err
		})
		if err != nil {
			return err
		}
		for _, o := range list {
			if checkName(o.name) != nil {
				continue
			}
			if err := each(o.name, o.size); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		from = next
	}
}

// buffer holds an object, or a part of one.
type buffer struct {
	bytes   []byte
	big     bool
	storage *[]byte
}

// smallSize is enough for most mail.
const smallSize = 64 << 10

var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallSize); return &b }}
	bigBuffers   = sync.Pool{New: func() any { b := make([]byte, partSize); return &b }}
)

// readObject reads up to partSize bytes; full says that there may be more.
func readObject(r io.Reader) (b *buffer, full bool, err error) {
	small := smallBuffers.Get().(*[]byte)
	n, err := readFull(r, *small)
	if err != nil || n < smallSize {
		b = &buffer{bytes: (*small)[:n], storage: small}
		if err != nil {
			b.release()
			return nil, false, err
		}
		return b, false, nil
	}
	big := bigBuffers.Get().(*[]byte)
	copy(*big, *small)
	smallBuffers.Put(small)
	b = &buffer{big: true, storage: big}
	n, err = readFull(r, (*big)[smallSize:])
	if err != nil {
		b.release()
		return nil, false, err
	}
	b.bytes = (*big)[:smallSize+n]
	return b, len(b.bytes) == partSize, nil
}

// fill reads the next part into a big buffer.
func (b *buffer) fill(r io.Reader) (full bool, err error) {
	n, err := readFull(r, *b.storage)
	b.bytes = (*b.storage)[:n]
	return n == partSize, err
}

func (b *buffer) release() {
	if b.big {
		bigBuffers.Put(b.storage)
	} else {
		smallBuffers.Put(b.storage)
	}
}

// readFull reads until p is full or r is at its end, which is not an error.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

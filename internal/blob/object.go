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

// objects is an object service, as a remote store needs it: single requests that
// may all be sent again. token is what tells a put from everybody else's of the
// same name.
type objects interface {
	// put stores an object unless there is one of its name.
	put(ctx context.Context, name string, body []byte, token string) error
	// begin begins to store one by parts, of which all but the last have partSize
	// bytes, part takes the next one, and end makes it an object unless there is
	// one of its name.
	begin(ctx context.Context, name, token string) (upload, error)
	part(ctx context.Context, u *upload, body []byte) error
	end(ctx context.Context, u *upload) error
	abandon(ctx context.Context, u *upload) error

	// get opens n bytes from off on, with n < 0 all.
	get(ctx context.Context, name string, off, n int64) (io.ReadCloser, object, error)
	head(ctx context.Context, name string) (object, error)
	remove(ctx context.Context, name string) error
	// page lists at most so many objects whose names begin with prefix, and from
	// where on to list the next ones; that is empty at the end.
	page(ctx context.Context, prefix, from string, most int) (list []object, next string, err error)

	// grade says what a failure of the others means, and line tells it on one line.
	grade(err error) grade
	line(err error) string
	close()
}

// object is an object as the service tells of it.
type object struct {
	name  string
	size  int64
	token string
	sum   *uint32 // CRC-32C of all of it; nil: not known
}

// upload is an object on its way by parts.
type upload struct {
	name, token, id string
	parts           []storedPart
	sum             uint32 // CRC-32C of the parts so far
}

type storedPart struct {
	tag string
	sum uint32
}

// grade is what a failure means for a store.
type grade int

const (
	refused grade = iota // for a reason that no try ends
	passing              // no answer, or one that may be another the next time
	missing              // there is no such object
	taken                // there is an object of this name
	denied               // the credentials do not allow it
	noRoom
	beyond // the range begins behind the end
)

// partSize is the size of the parts of a big object, and above what a sealed blob
// of a file takes: such a blob is one request.
const partSize = 9 << 20

// A request is tried so often, with pauses between that double up to
// longestPauses first ones: some eight seconds for a service that refuses
// connections.
const (
	tries         = 8
	firstPause    = 100 * time.Millisecond
	longestPauses = 20
)

// patience is how long a request without content, or one read of an answer, may
// take before it is given up.
const patience = 10 * time.Second

// pageObjects is how many objects are listed at a time.
const pageObjects = 1000

// remote keeps each blob as an object of its name.
type remote struct {
	objects
	place    string // for the operator
	identity string

	pause, patience time.Duration // firstPause and patience
	pageSize        int           // pageObjects
}

func newRemote(place string) *remote {
	return &remote{place: place, pause: firstPause, patience: patience, pageSize: pageObjects}
}

// newTransport is how a remote store is reached.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true // of what is sealed
	t.MaxIdleConnsPerHost = batchRequests
	return t
}

// within is how long a request of some bytes may take: at less than 512 KiB/s it
// would hardly end.
func (r *remote) within(bytes int) time.Duration {
	return r.patience + time.Duration(bytes>>19)*time.Second
}

// check fails unless the store answers, lists, takes what is put, and replaces
// nothing. It reads who the store is.
func (r *remote) check(ctx context.Context) error {
	doing := "open blob store " + r.place
	err := r.try(ctx, doing, 0, func(ctx context.Context) error {
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
		err = r.try(ctx, doing, 0, func(ctx context.Context) error {
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
	if errors.As(err, &g) && errors.As(err, &e) { // the operator is told all
		return fail.New(e.Code, "%s: %s", e.Detail, r.line(g.err)).WithHint("%s", e.Hint)
	}
	return err
}

func (r *remote) Identity() string { return r.identity }

func (r *remote) Close() error {
	r.close()
	return nil
}

// try sends a request until it is answered, or for as long as that makes sense.
func (r *remote) try(ctx context.Context, doing string, bytes int, request func(ctx context.Context) error) error {
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		once, cancel := context.WithTimeout(ctx, r.within(bytes))
		err := request(once)
		cancel()
		if err == nil {
			return nil
		}
		if again, err := r.again(ctx, doing, n, err); !again {
			return err
		}
	}
}

// again waits after the n-th try for the next one, or says why there is none.
func (r *remote) again(ctx context.Context, doing string, n int, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, fmt.Errorf("%s: %w", doing, ctx.Err())
	}
	grade := r.grade(err)
	if grade != passing || n == tries {
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

// graded is a failure that has its grade, so that callers can still tell.
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

// failure is an error of the service as keyroll tells of it. The log gets the
// place and what the service said; a user, who may be of any tenant, does not.
func (r *remote) failure(doing string, grade grade, err error) error {
	cause := &graded{grade, r.place + ": " + r.line(err), err}
	switch grade {
	case passing:
		return fail.New(api.Unavailable, "%s: the blob store does not answer", doing).Because(cause).
			WithHint("keyroll's log names the blob store and its last answer; try again when it is back")
	case denied:
		return fail.New(api.Unavailable, "%s: the blob store denies keyroll access", doing).Because(cause).
			WithHint("keyroll's log names the blob store; give keyroll credentials and permissions for it as docs/object-storage.md says")
	case noRoom:
		return fail.New(api.InsufficientStorage, "%s: the blob store has no room left; nothing was stored", doing).Because(cause).
			WithHint("free space in the blob store, which keyroll's log names; the same request then works without a restart")
	}
	return fail.New(api.Unavailable, "%s: the blob store rejects the request", doing).Because(cause).
		WithHint("keyroll's log names the blob store and its answer")
}

// of gives a failure about one blob its code.
func of(name string, err error) error {
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
	b, full, err := take(content)
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
	return of(name, r.try(ctx, doing, len(body), func(ctx context.Context) error {
		err := r.put(ctx, name, body, token)
		err = r.unlessMine(ctx, name, token, sent, err)
		sent = true
		return err
	}))
}

// unlessMine forgives a failure that came because an earlier try, whose answer
// was lost, has stored the object.
func (r *remote) unlessMine(ctx context.Context, name, token string, sent bool, err error) error {
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
	case failed != nil && r.grade(failed) == passing:
		return failed
	}
	return err
}

// putParts stores what begins with first and goes on with rest, one part after
// the other.
func (r *remote) putParts(ctx context.Context, name string, first *buffer, rest io.Reader) (size int64, err error) {
	doing := "put blob " + name
	var u upload
	err = r.try(ctx, doing, 0, func(ctx context.Context) (err error) {
		u, err = r.begin(ctx, name, rand.Text())
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.patience)
			defer cancel()
			_ = r.abandon(ctx, &u) // what stays, the service's own rule for unfinished uploads takes
		}
	}()
	for full, body := true, first; ; {
		if len(body.bytes) > 0 {
			if err := r.try(ctx, doing, len(body.bytes), func(ctx context.Context) error { return r.part(ctx, &u, body.bytes) }); err != nil {
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
	return size, of(name, r.try(ctx, doing, 0, func(ctx context.Context) error {
		err := r.unlessMine(ctx, name, u.token, sent, r.end(ctx, &u))
		sent = true
		return err
	}))
}

func (r *remote) Stat(ctx context.Context, name string) (size int64, err error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	err = r.try(ctx, "read blob "+name, 0, func(ctx context.Context) error {
		o, err := r.head(ctx, name)
		size = o.size
		return err
	})
	return size, of(name, err)
}

func (r *remote) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := r.try(ctx, "delete blob "+name, 0, func(ctx context.Context) error { return r.remove(ctx, name) })
	if gradeOf(err) == missing {
		return nil
	}
	return err
}

func (r *remote) List(ctx context.Context, prefix string, each func(name string, size int64) error) error {
	for from := ""; ; {
		var list []object
		var next string
		err := r.try(ctx, "list blobs", 0, func(ctx context.Context) (err error) {
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

// buffer is room for an object, or for a part of one.
type buffer struct {
	bytes []byte
	big   bool
	room  *[]byte
}

// smallSize is room enough for most mail.
const smallSize = 64 << 10

var (
	smallRoom = sync.Pool{New: func() any { b := make([]byte, smallSize); return &b }}
	bigRoom   = sync.Pool{New: func() any { b := make([]byte, partSize); return &b }}
)

// take reads up to partSize bytes; full says that there may be more.
func take(r io.Reader) (b *buffer, full bool, err error) {
	small := smallRoom.Get().(*[]byte)
	n, err := readFull(r, *small)
	if err != nil || n < smallSize {
		b = &buffer{bytes: (*small)[:n], room: small}
		if err != nil {
			b.release()
			return nil, false, err
		}
		return b, false, nil
	}
	big := bigRoom.Get().(*[]byte)
	copy(*big, *small)
	smallRoom.Put(small)
	b = &buffer{big: true, room: big}
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
	n, err := readFull(r, *b.room)
	b.bytes = (*b.room)[:n]
	return n == partSize, err
}

func (b *buffer) release() {
	if b.big {
		bigRoom.Put(b.room)
	} else {
		smallRoom.Put(b.room)
	}
}

// readFull reads until p is full or r is at its end, which is no error.
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

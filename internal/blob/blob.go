// Package blob keeps sealed content by name, in a store that a URL names.
//
// A blob is there whole or not at all, never changes, and is on stable storage
// once the call that put it returned. The package never sees a key or a
// plaintext, and never replaces a blob. Names are keyroll's own ids, so they
// tell nothing; what stands before a slash in one name is no name itself. Start
// reading at Store; every store passes blobtest.Run.
package blob

import (
	"context"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

// Store is a place for blobs. Its methods may be called from many goroutines.
type Store interface {
	// PutIfAbsent stores what r delivers and returns its length in bytes. It
	// fails AlreadyExists when there is a blob of this name, which then stays as
	// it is; an error of r is returned wrapped, and nothing is kept.
	PutIfAbsent(ctx context.Context, name string, r io.Reader) (size int64, err error)

	// Batch begins to put many blobs that become durable together.
	Batch() Batch

	// GetRange opens n bytes of a blob from off on, or with n < 0 all from off
	// on. Where the blob ends before, so does the reader. The caller closes it.
	// When the blob is deleted meanwhile the reader goes on, or fails NotFound. So
	// does GetRange when there is none. The reader is Sized where that costs no
	// request.
	GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error)

	// Stat returns the length of a blob in bytes. It fails NotFound.
	Stat(ctx context.Context, name string) (size int64, err error)

	// Delete removes a blob. One that is not there is no error. A deletion need
	// not survive a power cut.
	Delete(ctx context.Context, name string) error

	// List calls each for every blob whose name begins with prefix, in the order of
	// their names, until it returns an error, and returns that. Blobs that come or
	// go meanwhile are listed or not; each may delete some.
	List(ctx context.Context, prefix string, each func(name string, size int64) error) error

	// Identity tells the store from all others. It is made when a store is opened
	// for the first time, and stands in it as an object of the name MarkName, so
	// that a copy of the store is the same store.
	Identity() string

	// Close gives up what the store holds open. No other method is called after
	// it, and readers are closed before.
	Close() error
}

// Sized is a reader that knows the length of the blob that it reads, or a part of.
type Sized interface{ Size() int64 }

// Batch puts many blobs at the price of about one. One goroutine uses it.
type Batch interface {
	// Put takes what r delivers and returns its length in bytes. Until Commit
	// returns, the blob is there or not. After an error of r the batch goes on
	// without it. ctx lasts until the batch is committed or discarded.
	Put(ctx context.Context, name string, r io.Reader) (size int64, err error)

	// Commit makes all blobs of the batch durable and there. It fails AlreadyExists
	// when one of the names is taken. After an error none of the batch stays, as
	// far as the store still answers. A batch is committed once.
	Commit(ctx context.Context) error

	// Discard drops what was put and not committed; after Commit it does nothing.
	Discard()
}

// Open opens the store that address names: file:///FOLDER, made if it is not
// there, or s3://BUCKET/PREFIX, or azblob://ACCOUNT/CONTAINER/PREFIX.
// No address holds a secret: credentials are looked for where the services' own
// tools look.
func Open(ctx context.Context, address string) (Store, error) {
	u, err := url.Parse(address)
	if err != nil || u.User != nil || u.Opaque != "" || u.Fragment != "" {
		return nil, badAddress("file:///FOLDER, s3://BUCKET or azblob://ACCOUNT/CONTAINER")
	}
	switch u.Scheme {
	case "file":
		return openFolder(ctx, u)
	case "s3":
		return openS3(ctx, u)
	case "azblob":
		return openAzure(ctx, u)
	}
	return nil, fail.New(api.InvalidArgument, "open blob store: scheme %q must be one of file, s3 and azblob", u.Scheme)
}

// badAddress does not repeat the address: who put a secret into it must not find
// it in a log.
func badAddress(form string) error {
	return fail.New(api.InvalidArgument, "open blob store: the address must have the form %s", form).
		WithHint("it must not contain credentials; docs/object-storage.md says where to put them")
}

// onlyKnown returns the query of an address, which has no other names than these.
func onlyKnown(u *url.URL, names ...string) (url.Values, error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, err
	}
	for name, values := range query {
		if len(values) != 1 || !slices.Contains(names, name) {
			return nil, errors.New("unknown part of an address")
		}
	}
	return query, nil
}

// MarkName is no name of a blob.
const MarkName = "keyroll-store"

// readMark reads what stands under MarkName.
func readMark(r io.Reader) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(r, 100))
	mark := strings.TrimSpace(string(raw))
	if err == nil && mark == "" {
		err = errors.New(MarkName + " is empty")
	}
	return mark, err
}

// maxName is far above what keyroll's names need and below every store's limit.
const maxName = 200

// checkName refuses what is no blob name: parts of 0-9 and a-f between single
// slashes. Nothing that it lets through leaves a folder.
func checkName(name string) error {
	afterSlash := true
	for i := range len(name) {
		switch c := name[i]; {
		case c == '/' && !afterSlash:
			afterSlash = true
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f':
			afterSlash = false
		default:
			return fail.New(api.InvalidArgument, "blob name %.40q: byte %d is not allowed in a name", name, i+1)
		}
	}
	if afterSlash || len(name) > maxName {
		return fail.New(api.InvalidArgument, "blob name %.40q of %d bytes is not valid", name, len(name))
	}
	return nil
}

func notFound(name string) error {
	return fail.New(api.NotFound, "blob %s does not exist", name)
}

func alreadyExists(name string) error {
	return fail.New(api.AlreadyExists, "blob %s already exists", name)
}

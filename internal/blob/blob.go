// Package blob keeps sealed content by name, in a store given by a URL.
//
// A blob exists whole or not at all, never changes, and is on stable storage when
// the call that puts it returns. The package never sees a key or a plaintext, and
// never replaces a blob. Names are made of keyroll's own ids, so they reveal nothing;
// the part of a name before a slash is never a name itself. Start reading at Store;
// every store passes blobtest.Run.
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

// Store stores blobs. Its methods may be called from many goroutines.
type Store interface {
	// PutIfAbsent stores the content of r and returns its length in bytes. It fails
	// AlreadyExists if there is a blob of this name, which is left unchanged; an error
	// of r is returned wrapped, and nothing is kept.
	PutIfAbsent(ctx context.Context, name string, r io.Reader) (size int64, err error)

	// Batch begins to put many blobs that become durable together.
	Batch() Batch

	// GetRange opens n bytes of a blob from off on, or with n < 0 all bytes from off
	// on. If the blob ends earlier, so does the reader. The caller closes it. If the
	// blob is deleted in the meantime, the reader continues or fails NotFound. GetRange
	// fails NotFound if there is no such blob. The reader is Sized if that needs no
	// further request.
	GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error)

	// Stat returns the length of a blob in bytes. It fails NotFound.
	Stat(ctx context.Context, name string) (size int64, err error)

	// Delete deletes a blob. It does not fail if there is no such blob. A deletion need
	// not survive a power cut.
	Delete(ctx context.Context, name string) error

	// List calls each for every blob whose name begins with prefix, in the order of
	// their names, until each returns an error, and returns that. Blobs that are added
	// or deleted in the meantime may or may not be listed; each may delete blobs.
	List(ctx context.Context, prefix string, each func(name string, size int64) error) error

	// Identity identifies the store. It is made when a store is opened for the first
	// time, and kept in the store as an object named MarkName, so that a copy of the
	// store has the same identity.
	Identity() string

	// Close releases the resources of the store. All readers must have been closed,
	// and no other method may be called after it.
	Close() error
}

// Sized is a reader of a blob, or of a part of it, that knows the blob's length.
type Sized interface{ Size() int64 }

// Batch puts many blobs at about the cost of one. It must be used by one goroutine
// only.
type Batch interface {
	// Put adds the content of r to the batch and returns its length in bytes. Until
	// Commit returns, the blob may or may not exist. After an error of r the batch can
	// be used without this blob. ctx must last until the batch is committed or discarded.
	Put(ctx context.Context, name string, r io.Reader) (size int64, err error)

	// Commit makes all blobs of the batch durable and visible. It fails AlreadyExists
	// if one of the names is taken. After an error it deletes all blobs of the batch, as
	// far as the store still responds. A batch can be committed only once.
	Commit(ctx context.Context) error

	// Discard drops the uncommitted blobs of the batch; after Commit it does nothing.
	Discard()
}

// Open opens the store at address: file:///FOLDER, which is made if it does not
// exist, or s3://BUCKET/PREFIX, or azblob://ACCOUNT/CONTAINER/PREFIX. An address
// contains no secret: credentials are taken from where the services' own tools take
// them.
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

// badAddress does not repeat the address: a secret that a user put into it must not
// appear in a log.
func badAddress(form string) error {
	return fail.New(api.InvalidArgument, "open blob store: the address must have the form %s", form).
		WithHint("it must not contain credentials; docs/object-storage.md says where to put them")
}

// onlyKnown returns the query of an address, and fails if it has other names than these.
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

// MarkName is the name of the object with the store's identity. It is not a valid
// blob name.
const MarkName = "keyroll-store"

// readMark reads the identity from the content of the object MarkName.
func readMark(r io.Reader) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(r, 100))
	mark := strings.TrimSpace(string(raw))
	if err == nil && mark == "" {
		err = errors.New(MarkName + " is empty")
	}
	return mark, err
}

// maxName is far above the length of keyroll's names and below every store's limit.
const maxName = 200

// checkName fails unless name is a valid blob name: parts of 0-9 and a-f between
// single slashes. No valid name refers to a file outside the store's folder.
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

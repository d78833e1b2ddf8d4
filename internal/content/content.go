// Package content keeps items, the messages and files of containers, as blobs
// that each have a key of their own.
//
// Content of any size is returned byte for byte as it was stored, in memory that
// does not grow with it. An item exists whole or not at all: its blobs are durable
// before its rows are written, and its rows, its key pages and the caller's audit
// entry are written in one transaction. Nothing of an item is stored in the clear:
// content and metadata are sealed under the keys of its blobs, those keys are in
// key pages under the container's key, and a path is looked up by an HMAC. The
// package never calls a vault in a transaction, and never shows a path or a subject
// in an error about damage. Start reading at PrepareImport and PrepareFile.
package content

import (
	"context"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// Keys opens the keys of containers. *container.Containers is one.
type Keys interface {
	// OpenKey returns a copy of the container's key, which the caller zeroes. It
	// fails when the policy that protects the container does not allow its use.
	OpenKey(ctx context.Context, c container.Container, who api.Initiator) (container.Opened, error)
	// Locate reads where the keys of a container are; OpenLocated then does what OpenKey
	// does, or fails with store.ErrOutdated.
	Locate(ctx context.Context, tx *store.Tx, c container.Container) (container.Located, error)
	OpenLocated(ctx context.Context, at container.Located, who api.Initiator) (container.Opened, error)
	// Find returns the container of a kind with a name. FindLocated also locates it, but
	// may not find a site by another spelling of its URL.
	Find(ctx context.Context, tenant int64, kind container.Kind, name string) (container.Container, error)
	FindLocated(ctx context.Context, tx *store.Tx, tenant int64, kind container.Kind, name string) (container.Located, error)
	// Directory returns the directory that hashes the names of a tenant's files.
	Directory(ctx context.Context, tenant int64) (*container.Directory, error)
	// IsFolded reports whether all files of c are found by their folded paths;
	// SetFolded records it.
	IsFolded(ctx context.Context, tx *store.Tx, c container.Container) (bool, error)
	SetFolded(ctx context.Context, tx *store.Tx, c container.Container) error
}

// Contents is the content of all containers. Its methods may be called from
// many goroutines.
type Contents struct {
	db      *store.DB
	items   *items.Store
	keys    Keys
	sizes   items.Sizes
	now     func() time.Time
	folding sync.Mutex // one site at a time: it keeps 8 bytes of each file
}

// New returns the content of the given items.
func New(db *store.DB, stored *items.Store, keys Keys, now func() time.Time) *Contents {
	return &Contents{db: db, items: stored, keys: keys, sizes: stored.Sizes(), now: now}
}

// writtenTime returns the creation time of something new: whole milliseconds, as
// the database stores it.
func (s *Contents) writtenTime() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

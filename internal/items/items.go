// Package items stores what messages and files have in common: the rows of items and
// blobs, the sealed metadata of items, the keys of blobs in key pages of their container,
// and the sealed blobs in the blob store.
//
// It is the only package that names, writes, reads, lists or deletes a blob in the blob
// store, and the one that owns the tables item, blob, dropped, object, unfinished and
// item_total. A row that is to be deleted is confirmed without the index that found it
// (Rows.Remove). The package does not know how messages and files come and go; it never calls a vault in a
// transaction, and never shows a path or a subject in an error. Start reading at Row, Blob
// and Store.OpenPart.
package items

import (
	"context"
	"sync/atomic"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/container"
	"keyroll/internal/store"
	"keyroll/internal/together"
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
	// AcceptsBlobs reports whether blob keys may be put under a generation of a
	// container's key, and the lowest id that a blob may have, until tx ends.
	AcceptsBlobs(ctx context.Context, tx *store.Tx, tenant, id int64, generation uint32) (accepts bool, renewed int64, err error)
	// Exists reports whether there is a container with an id.
	Exists(ctx context.Context, tx *store.Tx, tenant, id int64) (bool, error)
}

// Config is what a Store uses.
type Config struct {
	DB    *store.DB
	Keys  Keys
	Blobs blob.Store
	Slots int   // of a new key page
	Sizes Sizes // default: DefaultSizes
	// OlderNodes, unless nil, reports whether a node is live that does not keep totals.
	OlderNodes func(ctx context.Context, tx *store.Tx) (bool, error)
	// ObjectlessNodes, unless nil, reports whether a node is live that does not read
	// objects of several blobs.
	ObjectlessNodes func(ctx context.Context, tx *store.Tx) (bool, error)
}

// Store is the items of all containers. Its methods may be called from many goroutines.
type Store struct {
	db         *store.DB
	keys       Keys
	blobs      blob.Store
	slots      int
	sizes      Sizes
	olderNodes func(ctx context.Context, tx *store.Tx) (bool, error)
	reads      activeReads

	objectlessNodes func(ctx context.Context, tx *store.Tx) (bool, error)
	sharing         atomic.Bool // no such node is live, nor will be

	smallPuts *together.Calls[*smallPut]
}

// New returns the items that a database and a blob store hold.
func New(c Config) *Store {
	if c.Sizes == (Sizes{}) {
		c.Sizes = DefaultSizes
	}
	if c.Sizes.Object == 0 {
		c.Sizes.Object = DefaultSizes.Object
	}
	none := func(context.Context, *store.Tx) (bool, error) { return false, nil }
	if c.OlderNodes == nil {
		c.OlderNodes = none
	}
	if c.ObjectlessNodes == nil {
		c.ObjectlessNodes = none
	}
	s := &Store{db: c.DB, keys: c.Keys, blobs: c.Blobs, slots: c.Slots, sizes: c.Sizes, olderNodes: c.OlderNodes, objectlessNodes: c.ObjectlessNodes}
	s.smallPuts = together.New(maxSmallPuts, s.storeSmall)
	return s
}

// Sizes returns how much is handled at a time.
func (s *Store) Sizes() Sizes { return s.sizes }

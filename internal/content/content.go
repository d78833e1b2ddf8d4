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
	"fmt"
	"runtime"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/lease"
	"keyroll/internal/store"
)

// BlobSize is how much of a file one blob holds, in bytes; the last blob has the
// rest. It is the unit that an update re-keys, and the interval at which a stream
// checks whether its container's key may still be used.
const BlobSize = 8 << 20

// partItems is how many items are read and decrypted at a time.
const partItems = 256

// Keys opens the keys of containers. *container.Containers is one.
type Keys interface {
	// OpenKey returns a copy of the container's key, which the caller zeroes. It
	// fails when the policy that protects the container does not allow its use.
	OpenKey(ctx context.Context, c container.Container, who api.Initiator) (container.Opened, error)
	// Directory returns the directory that hashes the names of a tenant's files.
	Directory(ctx context.Context, tenant int64) (*container.Directory, error)
	// DraftBackup drafts a backup of c, DraftFrom a container from a backup;
	// PrepareDraft makes a draft visible.
	DraftBackup(ctx context.Context, c container.Container) (*container.Draft, error)
	DraftFrom(ctx context.Context, backup container.Container, kind container.Kind, name string, policy int64) (*container.Draft, error)
	PrepareDraft(ctx context.Context, d *container.Draft) (*container.PreparedCreate, error)
	// AcceptsBlobs reports whether blob keys may be put under a generation of a
	// container's key, and the lowest id that a blob may have, until tx ends.
	AcceptsBlobs(ctx context.Context, tx *store.Tx, tenant, id int64, generation uint32) (accepts bool, renewed int64, err error)
	// SetRenewed records that no blob of a container is older than mark.
	SetRenewed(ctx context.Context, tx *store.Tx, tenant, id, mark int64) (bool, error)
	// Exists reports whether there is a container with an id.
	Exists(ctx context.Context, tx *store.Tx, tenant, id int64) (bool, error)
	// IsFolded reports whether all files of c are found by their folded paths;
	// SetFolded records it.
	IsFolded(ctx context.Context, tx *store.Tx, c container.Container) (bool, error)
	SetFolded(ctx context.Context, tx *store.Tx, c container.Container) error
	// BackupByID returns a backup, or fails NotFound; ListBackups returns those of some
	// backups that exist; RemoveBackup deletes one.
	ListBackups(ctx context.Context, tx *store.Tx, tenant int64, ids []int64) ([]container.Listed, error)
	BackupByID(ctx context.Context, tx *store.Tx, tenant, id int64) (container.Container, error)
	RemoveBackup(ctx context.Context, tx *store.Tx, tenant, id int64) error
	// PrepareAbandon prepares the deletion of a container whose key page is missing or
	// damaged.
	PrepareAbandon(ctx context.Context, c container.Container) (*container.PreparedAbandon, error)
}

// Contents is the content of all containers. Its methods may be called from
// many goroutines.
type Contents struct {
	// Leases are those of this node; nil means that it is the only node.
	Leases *lease.Leases
	// OlderNodes, unless nil, reports whether a node is live that does not keep totals.
	OlderNodes func(ctx context.Context, tx *store.Tx) (bool, error)

	db    *store.DB
	keys  Keys
	blobs blob.Store
	slots int
	now   func() time.Time

	blobSize int64
	batch    int           // messages that an import commits at a time
	part     int           // items that are read and decrypted at a time
	units    chan struct{} // one element for each unit of Renew under way
	reads    activeReads
	copies   copies
	folding  sync.Mutex // one site at a time: it keeps 8 bytes of each file
}

// New returns the content that db and blobs hold. New key pages have pageSlots
// slots.
func New(db *store.DB, keys Keys, blobs blob.Store, pageSlots int, now func() time.Time) *Contents {
	return &Contents{db: db, keys: keys, blobs: blobs, slots: pageSlots, now: now, blobSize: BlobSize, batch: batchMessages, part: partItems,
		units: make(chan struct{}, 2*runtime.GOMAXPROCS(0)), copies: copies{slot: make(chan struct{}, 1)}}
}

// Fold merges the small key pages of c's blobs, and returns how many pages it
// removed.
func (s *Contents) Fold(ctx context.Context, c container.Container) (int, error) {
	opened, err := s.keys.OpenKey(ctx, c, api.BySystem)
	if err != nil {
		return 0, err
	}
	defer opened.Zero()
	return keypage.Fold(ctx, s.db, opened.Key, keypage.Foldable{Tenant: c.Tenant, Parent: parentOf(opened), Class: envelope.ClassBlob, Slots: s.slots},
		func(ctx context.Context, tx *store.Tx, blobs []int64, page int64) error {
			return repoint(ctx, tx, c, blobs, page)
		})
}

// parentOf returns the parent of the key pages of a container's blobs.
func parentOf(opened container.Opened) keypage.Parent {
	return keypage.Parent{ID: opened.Container.ID, Generation: opened.Container.Generation}
}

// checkAccess fails if the container's key may no longer be used.
func (s *Contents) checkAccess(ctx context.Context, c container.Container) error {
	opened, err := s.keys.OpenKey(ctx, c, api.ByUser)
	if err != nil {
		return err
	}
	opened.Zero()
	return nil
}

// blobName returns a blob's name in the blob store: one folder per tenant, in it
// one per 18 hours and one per 16 seconds of ids, so that no folder grows forever
// and a batch uses few folders.
func blobName(tenant, blob int64) string {
	return fmt.Sprintf("%s%04x/%03x/%016x", tenantPrefix(tenant), blob>>48, blob>>36&0xfff, blob)
}

// tenantPrefix returns the prefix of the names of all blobs of a tenant, and of no
// others.
func tenantPrefix(tenant int64) string { return fmt.Sprintf("%x/", tenant) }

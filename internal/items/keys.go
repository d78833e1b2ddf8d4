package items

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// blobGeneration is the generation of every blob's key.
const blobGeneration = 1

// KeyPages puts the keys of new blobs into key pages of their container. Only
// the page that is being filled is open.
type KeyPages struct {
	slots  int
	open   *envelope.Page // nil: none
	openID int64
	Sealed []keypage.Row // to be inserted with the blobs
}

// NewKeyPages returns a KeyPages without pages.
func (s *Store) NewKeyPages() *KeyPages { return &KeyPages{slots: s.slots} }

// Add adds a copy of a blob's key and returns the id of the page that will hold it.
func (p *KeyPages) Add(blob int64, key *envelope.Key) (page int64, err error) {
	if p.open == nil {
		p.openID = store.NewID()
		if p.open, err = envelope.NewPage(); err != nil {
			return 0, err
		}
	}
	return p.openID, p.open.Add(envelope.Slot{Child: blob, Generation: blobGeneration, Key: *key})
}

// Full reports whether the open page must be sealed before another key is added.
func (p *KeyPages) Full() bool { return p.open != nil && p.open.Len() >= p.slots }

// Seal seals the open page, if there is one.
func (p *KeyPages) Seal(opened container.Opened) (err error) {
	if p.open == nil {
		return nil
	}
	parent := ParentOf(opened)
	row := keypage.Row{ID: p.openID, Tenant: opened.Container.Tenant, Parent: parent.ID, Generation: parent.Generation,
		Class: envelope.ClassBlob, Version: 1, Count: uint32(p.open.Len())}
	if row.Body, err = envelope.SealPage(opened.Key, row.EncryptionContext(), p.open); err != nil {
		return err
	}
	p.Sealed = append(p.Sealed, row)
	p.Zero()
	return nil
}

// Zero wipes the open page.
func (p *KeyPages) Zero() {
	if p.open != nil {
		p.open.Zero()
		p.open = nil
	}
}

// PageSet is the key pages of some blobs, as read in one View.
type PageSet map[int64]keypage.Row

// PagesOf returns the pages that hold the keys of blobs. A missing page is not in
// the set; the keyring reports it.
func PagesOf(ctx context.Context, tx *store.Tx, tenant int64, blobs []Blob) (PageSet, error) {
	var ids []int64
	asked := make(map[int64]bool)
	for _, b := range blobs {
		if !asked[b.Page] {
			asked[b.Page] = true
			ids = append(ids, b.Page)
		}
	}
	rows, err := keypage.GetAll(ctx, tx, tenant, ids)
	if err != nil {
		return nil, err
	}
	set := make(PageSet, len(rows))
	for _, row := range rows {
		set[row.ID] = row
	}
	return set, nil
}

// Keyring holds the open keys of some blobs.
type Keyring struct {
	keys   map[int64]*envelope.Key // by blob
	failed map[int64]error         // by page
	Stale  bool                    // a page and the container's key were not read at one moment: read both again
}

// OpenKeys decrypts the keys of blobs from their pages. If a page cannot be
// decrypted, Keyring.Key returns the error for the blobs of that page.
func OpenKeys(opened container.Opened, pages PageSet, blobs []Blob) *Keyring {
	ring := &Keyring{keys: make(map[int64]*envelope.Key, len(blobs)), failed: make(map[int64]error)}
	byPage := make(map[int64][]int64)
	for _, b := range blobs {
		byPage[b.Page] = append(byPage[b.Page], b.ID)
	}
	for id, ids := range byPage {
		row, found := pages[id]
		if !found {
			ring.failed[id] = fail.New(api.Damaged, "key page %d is missing", id)
			continue
		}
		page, err := openPage(opened, row)
		if err != nil {
			ring.failed[id] = err
			ring.Stale = ring.Stale || errors.Is(err, container.ErrGeneration)
			continue
		}
		for _, blob := range ids {
			if key, ok := page.Find(blob, blobGeneration); ok {
				ring.keys[blob] = key
			}
		}
		page.Zero()
	}
	return ring
}

// openPage decrypts a page of blob keys with the container key of the page's generation.
func openPage(opened container.Opened, row keypage.Row) (*envelope.Page, error) {
	key, err := opened.KeyOf(row.Generation)
	if err != nil {
		return nil, err
	}
	return envelope.OpenPage(key, row.EncryptionContext(), row.Body)
}

// Key returns a blob's key; the keyring still owns it. It fails Damaged, naming
// the item and the blob.
func (k *Keyring) Key(b Blob) (*envelope.Key, error) {
	if err := k.failed[b.Page]; err != nil {
		return nil, fmt.Errorf("open item %d: key of blob %d: %w", b.Item, b.ID, err)
	}
	if key, ok := k.keys[b.ID]; ok {
		return key, nil
	}
	return nil, fail.New(api.Damaged, "open item %d: key of blob %d: key page %d has no slot for it", b.Item, b.ID, b.Page)
}

// Zero wipes the keys.
func (k *Keyring) Zero() {
	for _, key := range k.keys {
		key.Zero()
	}
}

// RemoveKeys removes the keys of an item's blobs from their pages. A page that cannot
// be decrypted is left as it is and is no error here; it is reported when the other
// keys in it are read.
func RemoveKeys(ctx context.Context, tx *store.Tx, opened container.Opened, blobs []Blob) error {
	byPage := make(map[int64][]Blob)
	for _, b := range blobs {
		byPage[b.Page] = append(byPage[b.Page], b)
	}
	ids := make([]int64, 0, len(byPage))
	for id := range byPage {
		ids = append(ids, id)
	}
	slices.Sort(ids)         // all transactions that swap pages use this order
	for _, id := range ids { // a page that was folded into another in the meantime no longer exists
		row, err := keypage.Get(ctx, tx, opened.Container.Tenant, id)
		if fail.Is(err, api.NotFound) {
			if err := CheckNotMoved(ctx, tx, byPage[id][0]); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := removeSlots(ctx, tx, opened, row, byPage[id]); err != nil {
			return err
		}
	}
	return nil
}

// CheckNotMoved returns store.ErrOutdated unless the database still has the same blob and the same
// key page for it. If it has, the missing page is damage and must not block the
// caller, like a page that cannot be decrypted.
func CheckNotMoved(ctx context.Context, tx *store.Tx, b Blob) error {
	now, err := currentBlob(ctx, tx, b)
	if err == nil && (now.ID != b.ID || now.Page != b.Page) {
		return store.ErrOutdated
	}
	return err
}

func removeSlots(ctx context.Context, tx *store.Tx, opened container.Opened, row keypage.Row, blobs []Blob) error {
	if int(row.Count) == len(blobs) { // a page that is deleted whole need not be decrypted
		return swapped(keypage.Delete(ctx, tx, row))
	}
	key, err := opened.KeyOf(row.Generation)
	if errors.Is(err, container.ErrGeneration) {
		return store.ErrOutdated
	}
	var page *envelope.Page
	if err == nil {
		page, err = envelope.OpenPage(key, row.EncryptionContext(), row.Body)
	}
	if fail.Is(err, api.Damaged) {
		return nil
	}
	if err != nil {
		return err
	}
	defer page.Zero()
	for _, b := range blobs {
		page.Remove(b.ID, blobGeneration)
	}
	if page.Len() == 0 {
		return swapped(keypage.Delete(ctx, tx, row))
	}
	next := row
	next.Version++
	next.Count = uint32(page.Len())
	if next.Body, err = envelope.SealPage(key, next.EncryptionContext(), page); err != nil {
		return err
	}
	return swapped(keypage.Swap(ctx, tx, []keypage.Row{row}, []keypage.Row{next}))
}

// swapped returns store.ErrOutdated if a compare-and-swap of one page was not done.
func swapped(done []bool, err error) error {
	if err == nil && !done[0] {
		return store.ErrOutdated
	}
	return err
}

// ParentOf returns the parent of the key pages of a container's blobs.
func ParentOf(opened container.Opened) keypage.Parent {
	return keypage.Parent{ID: opened.Container.ID, Generation: opened.Container.Generation}
}

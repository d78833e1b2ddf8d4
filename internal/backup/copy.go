package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/keypage"
	"keyroll/internal/lease"
	"keyroll/internal/name"
	"keyroll/internal/store"
)

// copies lets only one copy at a time hold a snapshot: the number of database
// connections is small.
type copies struct {
	slot chan struct{}
	mu   sync.Mutex
	id   int64 // of the container that is being filled; 0: none
}

// current returns the id of the container that this process is filling, and 0 if
// there is none.
func (c *copies) current() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

func (c *copies) set(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.id = id
}

// copyBlobs is how many blobs a copy stores at a time, unless one item has more.
const copyBlobs = 2048

// PreparedCopy is a container whose content is a copy of that of another one. It becomes
// visible when it is committed.
type PreparedCopy struct {
	backups *Backups
	draft   *container.Draft
	id      int64 // of the new container
	made    *container.PreparedCreate
	backup  *Backup // unless nil: the copy is this backup
	lease   *lease.Held
}

// prepareCopy copies items and keys into a draft; blobs are shared. After a failure the
// stored rows are left for DeleteLeftoverRows. Of the copies of this process, one at a time is under
// way until it is closed.
func (s *Backups) prepareCopy(ctx context.Context, from container.Container, draft *container.Draft) (p *PreparedCopy, err error) {
	select {
	case s.copies.slot <- struct{}{}:
	case <-ctx.Done():
		draft.Zero()
		return nil, ctx.Err()
	}
	p = &PreparedCopy{backups: s, draft: draft, id: draft.ID}
	if err = p.copy(ctx, from); err == nil {
		p.made, err = s.keys.PrepareDraft(ctx, draft)
	}
	if err != nil {
		p.Close(ctx, store.NotCommitted)
		return nil, err
	}
	return p, nil
}

// copy copies the content of from under a lease, by which DeleteLeftoverRows on another node sees that
// the copy is under way.
func (p *PreparedCopy) copy(ctx context.Context, from container.Container) (err error) {
	s := p.backups
	if p.lease, err = s.Leases.Acquire(ctx, copyLeases+fmt.Sprint(p.id)); err != nil {
		return err
	}
	if p.lease == nil {
		return errDiscarded()
	}
	err = p.copyLeased(p.lease.Context(), from)
	if cause := context.Cause(p.lease.Context()); err != nil && errors.Is(cause, lease.ErrLost) {
		err = errDiscarded().Because(cause)
	}
	return err
}

func (p *PreparedCopy) copyLeased(ctx context.Context, from container.Container) error {
	s := p.backups
	if err := s.items.CheckAccess(ctx, from); err != nil {
		return err
	}
	to := p.draft.Opened()
	defer to.Zero()
	s.copies.set(to.ID)
	err := s.db.InTx(ctx, func(tx *store.Tx) error { return items.InsertUnfinished(ctx, tx, to.Tenant, to.ID, true) })
	if err != nil {
		return err
	}
	fault.Point("copy.begun")
	if err := store.Retry(func() error { return s.copyAll(ctx, from, to) }); err != nil {
		return err
	}
	// If access to the key was revoked in the meantime, there must be no copy under another key.
	return s.items.CheckAccess(ctx, from)
}

// Prepare prepares the container's key again.
func (p *PreparedCopy) Prepare(ctx context.Context) error { return p.made.Prepare(ctx) }

// Commit makes the whole copy visible in tx. It fails Unavailable if another node has
// discarded it.
func (p *PreparedCopy) Commit(ctx context.Context, tx *store.Tx) (container.Container, error) {
	c, err := p.made.Commit(ctx, tx)
	if err != nil {
		return c, err
	}
	if mine, err := items.DeleteUnfinished(ctx, tx, p.id, true); err != nil {
		return c, err
	} else if !mine {
		return c, errDiscarded()
	}
	if err := p.backups.items.KeepTotal(ctx, tx, c); err != nil {
		return c, err
	}
	if p.backup != nil {
		p.backup.Container = c
		return c, insertBackup(ctx, tx, *p.backup)
	}
	return c, nil
}

// Backup returns the backup that Commit has made.
func (p *PreparedCopy) Backup() Backup { return *p.backup }

// Close ends the copy.
func (p *PreparedCopy) Close(ctx context.Context, outcome store.Outcome) {
	if p.made != nil {
		p.made.Close(ctx, outcome)
	}
	p.draft.Zero()
	p.lease.Release()
	p.backups.copies.set(0)
	<-p.backups.copies.slot
}

func (s *Backups) copyAll(ctx context.Context, from container.Container, to container.Opened) error {
	source, err := s.keys.OpenKey(ctx, from, api.ByUser)
	if err != nil {
		return err
	}
	defer source.Zero()
	return s.copyItems(ctx, source, to)
}

// copyItems stores the items of from, as they are in one snapshot, as items of to,
// in their order. It fails with store.ErrOutdated, and has stored nothing, if the container's
// key was replaced before the snapshot.
func (s *Backups) copyItems(ctx context.Context, from, to container.Opened) error {
	directory, err := s.keys.Directory(ctx, from.Tenant)
	if err != nil {
		return err
	}
	return s.db.ViewOnce(ctx, func(tx *store.Tx) error {
		if has, err := from.HasAllKeys(ctx, tx); err != nil {
			return err
		} else if !has {
			return store.ErrOutdated
		}
		lost, err := items.SelectWithoutBlob(ctx, tx, from.Tenant, from.ID, items.All)
		if err != nil {
			return err
		}
		if len(lost) > 0 {
			return fail.New(api.Damaged, "copy item %d: blob number 0 is missing", lost[0].ID)
		}
		for after := int64(0); ; {
			list, err := items.Select(ctx, tx, items.Range{Which: items.All, Tenant: from.Tenant, Container: from.ID, After: after, Limit: s.sizes.Batch})
			if err != nil || len(list) == 0 {
				return err
			}
			part := copyPart{backups: s, directory: directory, from: from, to: to}
			for _, f := range list {
				blobs := []items.Blob{f.Blob}
				if f.Item.PathHash != nil {
					if blobs, err = items.BlobsOf(ctx, tx, from.Tenant, f.Item.ID); err != nil {
						return err
					}
				}
				part.items, part.blobs, part.n = append(part.items, f.Item), append(part.blobs, blobs), part.n+len(blobs)
				if part.n < copyBlobs {
					continue
				}
				if err := part.store(ctx, tx); err != nil {
					return err
				}
			}
			if err := part.store(ctx, tx); err != nil {
				return err
			}
			after = list[len(list)-1].Item.ID
		}
	})
}

// copyPart is a number of items that are being copied into another container.
type copyPart struct {
	backups   *Backups
	directory *container.Directory
	from, to  container.Opened
	items     []items.Row
	blobs     [][]items.Blob // of each item
	n         int            // blobs
}

// store stores the part, whose pages it reads in tx, and begins a new one.
func (p *copyPart) store(ctx context.Context, tx *store.Tx) error {
	if len(p.items) == 0 {
		return nil
	}
	flat := make([]items.Blob, 0, p.n)
	for _, blobs := range p.blobs {
		flat = append(flat, blobs...)
	}
	pages, err := items.PagesOf(ctx, tx, p.from.Tenant, flat)
	if err != nil {
		return err
	}
	ring := items.OpenKeys(p.from, pages, flat)
	defer ring.Zero()
	list, blobs, sealed, err := p.seal(ring)
	if err != nil {
		return err
	}
	// On another connection: tx remains the snapshot.
	err = p.backups.db.InTx(ctx, func(tx *store.Tx) error {
		return insertCopiedItems(ctx, tx, p.to.ID, func() error { return items.Insert(ctx, tx, list, blobs, sealed) })
	})
	if err != nil {
		return err
	}
	fault.Point("copy.part-stored")
	p.items, p.blobs, p.n = nil, nil, 0
	return nil
}

// seal returns the part's items, blobs and key pages as items, blobs and key pages of
// the target container.
func (p *copyPart) seal(ring *items.Keyring) (list []items.Row, flat []items.Blob, sealed []keypage.Row, err error) {
	pages := p.backups.items.NewKeyPages()
	defer pages.Zero()
	for i, item := range p.items {
		copied, err := p.copyItem(item, p.blobs[i], ring)
		if err != nil {
			return nil, nil, nil, err
		}
		list = append(list, copied)
		for _, b := range p.blobs[i] {
			key, err := ring.Key(b)
			if err != nil {
				return nil, nil, nil, err
			}
			b.Item = copied.ID
			if b.Page, err = pages.Add(b.ID, key); err != nil {
				return nil, nil, nil, err
			}
			flat = append(flat, b)
			if pages.Full() {
				if err := pages.Seal(p.to); err != nil {
					return nil, nil, nil, err
				}
			}
		}
	}
	if err := pages.Seal(p.to); err != nil {
		return nil, nil, nil, err
	}
	return list, flat, pages.Sealed, nil
}

// copyItem returns an item as an item of the target container, with the same metadata.
func (p *copyPart) copyItem(item items.Row, blobs []items.Blob, ring *items.Keyring) (items.Row, error) {
	if err := items.CheckBlobs(item, blobs); err != nil {
		return items.Row{}, err
	}
	key, err := ring.Key(blobs[0])
	if err != nil {
		return items.Row{}, err
	}
	var metadata json.RawMessage
	if err := item.OpenMetadata(key, &metadata); err != nil {
		return items.Row{}, err
	}
	defer clear(metadata)
	copied := items.Row{ID: store.NewID(), Tenant: p.to.Tenant, Container: p.to.ID, Version: 1, Size: item.Size, Created: item.Created}
	if item.PathHash != nil {
		var m items.FileMetadata
		if err := json.Unmarshal(metadata, &m); err != nil || !m.Describes(item, blobs) {
			return items.Row{}, fail.New(api.Damaged, "copy item %d: its blobs differ from those that were stored, or are out of order", item.ID)
		}
		// The copy is found by the same form of the path as the original.
		path := m.Path
		if !bytes.Equal(item.PathHash, p.directory.Hash("path", p.from.ID, path)) {
			path = name.Fold(path)
		}
		copied.PathHash = p.directory.Hash("path", p.to.ID, path)
	}
	return copied, copied.SealMetadata(key, metadata)
}

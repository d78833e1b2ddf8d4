// Package backup makes backups of containers, restores and deletes them, and deletes the
// rows that containers leave which no longer exist.
//
// A backup is a frozen copy of the keys and the list of items of a container, as they were
// at one moment; it shares the container's blobs. A copy, to a backup or from one, exists
// whole or not at all: its rows are stored in parts and become visible in one transaction.
// Those of a copy that failed are deleted later, on any node. The package reads no content,
// and deletes no blob. Start reading at Backups.Prepare.
package backup

import (
	"context"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/lease"
	"keyroll/internal/store"
)

// Keys drafts and opens the keys of containers. *container.Containers is one.
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
	// BackupByID returns a backup, or fails NotFound; ListBackups returns those of some
	// backups that exist; RemoveBackup deletes one.
	ListBackups(ctx context.Context, tx *store.Tx, tenant int64, ids []int64) ([]container.Listed, error)
	BackupByID(ctx context.Context, tx *store.Tx, tenant, id int64) (container.Container, error)
	RemoveBackup(ctx context.Context, tx *store.Tx, tenant, id int64) error
	// PrepareAbandon prepares the deletion of a container whose key page is missing or
	// damaged.
	PrepareAbandon(ctx context.Context, c container.Container) (*container.PreparedAbandon, error)
}

// Backups is the backups of all containers. Its methods may be called from many
// goroutines.
type Backups struct {
	// Leases are those of this node; nil means that it is the only node.
	Leases *lease.Leases

	db     *store.DB
	items  *items.Store
	keys   Keys
	sizes  items.Sizes
	copies copies
}

// New returns the backups of the given items.
func New(db *store.DB, stored *items.Store, keys Keys) *Backups {
	return &Backups{db: db, items: stored, keys: keys, sizes: stored.Sizes(), copies: copies{slot: make(chan struct{}, 1)}}
}

// Backup is a frozen copy of a container's keys and item list. It is a container
// of its own, with the name of its source.
type Backup struct {
	container.Container
	Of      container.Kind // kind of the source container
	Expires time.Time      // when it is deleted automatically; zero: never
}

// Prepare copies the items and keys of c, as they are at one moment, into a
// backup. It reads no content, and the backup shares c's blobs.
func (s *Backups) Prepare(ctx context.Context, c container.Container, expires time.Time) (*PreparedCopy, error) {
	draft, err := s.keys.DraftBackup(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("make backup: %w", err)
	}
	p, err := s.prepareCopy(ctx, c, draft)
	if err != nil {
		return nil, fmt.Errorf("make backup: %w", err)
	}
	p.backup = &Backup{Of: c.Kind, Expires: expires}
	return p, nil
}

// PrepareRestore copies a backup into a new container of its kind, which gets a policy of
// its own or, with policy 0, the default one. It fails AlreadyExists if the name is
// taken.
func (s *Backups) PrepareRestore(ctx context.Context, b Backup, name string, policy int64) (*PreparedCopy, error) {
	draft, err := s.keys.DraftFrom(ctx, b.Container, b.Of, name, policy)
	if err != nil {
		return nil, fmt.Errorf("restore backup: %w", err)
	}
	p, err := s.prepareCopy(ctx, b.Container, draft)
	if err != nil {
		return nil, fmt.Errorf("restore backup: %w", err)
	}
	return p, nil
}

// Expire deletes a backup. Its items, and blobs that nothing else references, are
// left for DeleteLeftoverRows.
func (s *Backups) Expire(ctx context.Context, tx *store.Tx, b Backup) error {
	if err := deleteBackup(ctx, tx, b.Tenant, b.ID); err != nil {
		return fmt.Errorf("expire backup: %w", err)
	}
	if err := s.keys.RemoveBackup(ctx, tx, b.Tenant, b.ID); err != nil {
		return fmt.Errorf("expire backup: %w", err)
	}
	if err := items.InsertUnfinished(ctx, tx, b.Tenant, b.ID, false); err != nil {
		return fmt.Errorf("expire backup: %w", err)
	}
	fault.Point("expire.before-commit")
	return nil
}

// ByID returns a backup, or fails NotFound. The tenant's directory must have
// been opened before, as for List and Due.
func (s *Backups) ByID(ctx context.Context, tx *store.Tx, tenant, id int64) (Backup, error) {
	c, err := s.keys.BackupByID(ctx, tx, tenant, id)
	if err != nil {
		return Backup{}, err
	}
	b, err := selectBackup(ctx, tx, tenant, id)
	b.Container = c
	return b, err
}

// ListedBackup is a backup in a list, with what is shown of it besides its own row.
type ListedBackup struct {
	Backup
	Listed container.Listed // with the same Container
	Total  items.Total
}

// List returns up to limit backups with ids above after, in the order in which they
// were made: with two queries. A backup whose name cannot be decrypted is listed as
// Damaged.
func (s *Backups) List(ctx context.Context, tx *store.Tx, tenant, after int64, limit int) ([]ListedBackup, error) {
	list, err := selectBackupsWithTotals(ctx, tx, tenant, after, limit)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(list))
	for i, b := range list {
		ids[i] = b.ID
	}
	listed, err := s.keys.ListBackups(ctx, tx, tenant, ids)
	if err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	containers := make(map[int64]container.Listed, len(listed))
	for _, l := range listed {
		containers[l.ID] = l
	}
	for i := range list {
		l, found := containers[list[i].ID]
		if !found {
			return nil, fmt.Errorf("list backups: %w", fail.New(api.NotFound, "backup %d does not exist", list[i].ID))
		}
		list[i].Listed, list[i].Container = l, l.Container
	}
	return list, nil
}

// Due returns up to limit backups that had expired at a moment.
func (s *Backups) Due(ctx context.Context, tx *store.Tx, tenant int64, at time.Time, limit int) ([]Backup, error) {
	ids, err := tx.IDs(ctx, selectDueIDs, tenant, at.UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("list expired backups: %w", err)
	}
	list := make([]Backup, len(ids))
	for i, id := range ids {
		list[i], err = s.ByID(ctx, tx, tenant, id)
		if fail.Is(err, api.Damaged) {
			list[i].ID, list[i].Tenant, list[i].Damaged = id, tenant, err
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list expired backups: %w", err)
		}
	}
	return list, nil
}

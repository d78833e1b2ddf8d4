package content

import (
	"context"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/store"
)

// Backup is a frozen copy of a container's keys and item list. It is a container
// of its own, with the name of its source.
type Backup struct {
	container.Container
	Of      container.Kind // kind of the source container
	Expires time.Time      // when it is deleted automatically; zero: never
}

// PrepareBackup copies the items and keys of c, as they are at one moment, into a
// backup. It reads no content, and the backup shares c's blobs.
func (s *Contents) PrepareBackup(ctx context.Context, c container.Container, expires time.Time) (*PreparedCopy, error) {
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
func (s *Contents) PrepareRestore(ctx context.Context, b Backup, name string, policy int64) (*PreparedCopy, error) {
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
func (s *Contents) Expire(ctx context.Context, tx *store.Tx, b Backup) error {
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

// BackupByID returns a backup, or fails NotFound. The tenant's directory must have
// been opened before, as for Backups and Due.
func (s *Contents) BackupByID(ctx context.Context, tx *store.Tx, tenant, id int64) (Backup, error) {
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

// Backups returns up to limit backups with ids above after, in the order in which they
// were made: with two queries. A backup whose name cannot be decrypted is listed as
// Damaged.
func (s *Contents) Backups(ctx context.Context, tx *store.Tx, tenant, after int64, limit int) ([]ListedBackup, error) {
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
func (s *Contents) Due(ctx context.Context, tx *store.Tx, tenant int64, at time.Time, limit int) ([]Backup, error) {
	ids, err := tx.IDs(ctx, selectDueIDs, tenant, at.UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("list expired backups: %w", err)
	}
	list := make([]Backup, len(ids))
	for i, id := range ids {
		list[i], err = s.BackupByID(ctx, tx, tenant, id)
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

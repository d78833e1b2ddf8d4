package content

import (
	"context"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/store"
)

// Backup is a frozen copy of a container's keys and item list. It is a container
// of its own, with the name of its source.
type Backup struct {
	container.Container
	Of      container.Kind // kind of the source container
	Expires time.Time      // when it is deleted automatically; zero: never
}

// Backup makes a backup of c as it is at one moment. It reads no content, and
// shares c's blobs. also runs in the transaction that makes the whole backup visible.
func (s *Contents) Backup(ctx context.Context, c container.Container, expires time.Time, also func(tx *store.Tx, b Backup) error) error {
	draft, err := s.keys.DraftBackup(ctx, c)
	if err != nil {
		return fmt.Errorf("make backup: %w", err)
	}
	_, err = s.copyInto(ctx, c, draft, func(tx *store.Tx, made container.Container) error {
		b := Backup{made, c.Kind, expires}
		if err := insertBackup(ctx, tx, b); err != nil {
			return err
		}
		return also(tx, b)
	})
	if err != nil {
		return fmt.Errorf("make backup: %w", err)
	}
	return nil
}

// Restore makes a container of the backup's kind with the backup's content, under
// a policy of its own or, with policy 0, the default one. also, unless nil, runs in
// the transaction that makes the whole container visible. It fails AlreadyExists if
// the name is taken.
func (s *Contents) Restore(ctx context.Context, b Backup, name string, policy int64, also func(tx *store.Tx, c container.Container) error) (container.Container, error) {
	draft, err := s.keys.DraftFrom(ctx, b.Container, b.Of, name, policy)
	if err != nil {
		return container.Container{}, fmt.Errorf("restore backup: %w", err)
	}
	c, err := s.copyInto(ctx, b.Container, draft, also)
	if err != nil {
		return c, fmt.Errorf("restore backup: %w", err)
	}
	return c, nil
}

// Expire deletes a backup. Its items, and blobs that nothing else references, are
// left for DeleteLeftoverRows. also runs in the same transaction.
func (s *Contents) Expire(ctx context.Context, b Backup, also func(tx *store.Tx) error) error {
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := deleteBackup(ctx, tx, b.Tenant, b.ID); err != nil {
			return err
		}
		if err := s.keys.RemoveBackup(ctx, tx, b.Tenant, b.ID); err != nil {
			return err
		}
		if err := insertUnfinished(ctx, tx, b.Tenant, b.ID, false); err != nil {
			return err
		}
		if err := also(tx); err != nil {
			return err
		}
		fault.Point("expire.before-commit")
		return nil
	})
	if err != nil {
		return fmt.Errorf("expire backup: %w", err)
	}
	fault.Point("expire.after-commit")
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

// Backups returns up to limit backups with ids above after, in the order in
// which they were made. A backup whose name cannot be decrypted is listed as Damaged.
func (s *Contents) Backups(ctx context.Context, tx *store.Tx, tenant, after int64, limit int) ([]Backup, error) {
	return s.selectBackups(ctx, tx, tenant, selectBackupIDs, tenant, after, limit)
}

// Due returns up to limit backups that had expired at a moment.
func (s *Contents) Due(ctx context.Context, tx *store.Tx, tenant int64, at time.Time, limit int) ([]Backup, error) {
	return s.selectBackups(ctx, tx, tenant, selectDueIDs, tenant, at.UnixMilli(), limit)
}

func (s *Contents) selectBackups(ctx context.Context, tx *store.Tx, tenant int64, query string, args ...any) ([]Backup, error) {
	ids, err := tx.IDs(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	list := make([]Backup, len(ids))
	for i, id := range ids {
		list[i], err = s.BackupByID(ctx, tx, tenant, id)
		if fail.Is(err, api.Damaged) {
			list[i].ID, list[i].Tenant, list[i].Damaged = id, tenant, err
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list backups: %w", err)
		}
	}
	return list, nil
}

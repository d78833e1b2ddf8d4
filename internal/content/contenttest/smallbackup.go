package contenttest

import (
	"context"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/backup"
	"keyroll/internal/collect"
	"keyroll/internal/compact"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// MustBackup makes a backup.
func (w *Small) MustBackup(t testing.TB, c container.Container) (b backup.Backup) {
	t.Helper()
	Must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) error {
		return w.Backup(ctx, c, time.Time{}, func(_ *store.Tx, made backup.Backup) error {
			b = made
			return nil
		})
	}, func() bool {
		Must(t, w.Backups.DeleteLeftoverRows(context.Background(), Tenant)) // deletes the rows of a copy that failed
		return w.HasBackup(t, b)
	}))
	return b
}

// HasBackup reports whether a backup exists.
func (w *Small) HasBackup(t testing.TB, b backup.Backup) bool {
	t.Helper()
	err := w.DB.ViewOnce(context.Background(), func(tx *store.Tx) error {
		_, err := w.Backups.ByID(context.Background(), tx, Tenant, b.ID)
		return err
	})
	if err != nil && !fail.Is(err, api.NotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// MustRestore restores a backup into a new container.
func (w *Small) MustRestore(t testing.TB, b backup.Backup, name string) container.Container {
	t.Helper()
	var c container.Container
	Must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) (err error) {
		c, err = w.Restore(ctx, b, name, 0)
		return err
	}, func() bool {
		Must(t, w.Backups.DeleteLeftoverRows(context.Background(), Tenant))
		return w.Exists(&c, b.Of, name)
	}))
	return c
}

// MustExpire deletes a backup.
func (w *Small) MustExpire(t testing.TB, b backup.Backup) {
	t.Helper()
	Must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) error {
		return w.Expire(ctx, b)
	}, func() bool { return !w.HasBackup(t, b) }))
}

// TidyUp deletes leftover rows, and the blobs of deleted and replaced content.
func (w *Small) TidyUp(t testing.TB) {
	t.Helper()
	Must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) error { return w.Backups.DeleteLeftoverRows(ctx, Tenant) }, nil))
	w.MustCollect(t, time.Hour) // no orphans, but what was dropped
}

// AllBackups is every backup.
func (w *Small) AllBackups(t testing.TB) (list []backup.Backup) {
	t.Helper()
	Must(t, w.DB.ViewOnce(context.Background(), func(tx *store.Tx) (err error) {
		listed, err := w.Backups.List(context.Background(), tx, Tenant, 0, 1000)
		list = nil
		for _, b := range listed {
			list = append(list, b.Backup)
		}
		return err
	}))
	return list
}

// MustCompact compacts objects.
func (w *Small) MustCompact(t testing.TB) (done compact.Compacted) {
	t.Helper()
	Must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) (err error) {
		done, err = w.Compactor.Run(ctx)
		return err
	}, nil))
	return done
}

// MustCollect collects orphans older than grace; with grace 0 all that exist now.
func (w *Small) MustCollect(t testing.TB, grace time.Duration) collect.Collected {
	t.Helper()
	c, err := w.CollectTenant(context.Background(), Tenant, grace, false)
	Must(t, err)
	return c
}

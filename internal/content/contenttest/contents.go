package contenttest

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"keyroll/internal/backup"
	"keyroll/internal/blob"
	"keyroll/internal/collect"
	"keyroll/internal/compact"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/renew"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// Contents commits each change of content in a transaction of its own.
type Contents struct {
	*content.Contents
	Items     *items.Store
	Backups   *backup.Backups
	Collector *collect.Collector
	Renewer   *renew.Renewer
	Compactor *compact.Compactor // with SmallLimits
	DB        *store.DB
}

// Config is what Connect connects.
type Config struct {
	DB         *store.DB
	Containers *container.Containers
	Blobs      blob.Store
	Slots      int         // of a new key page
	Sizes      items.Sizes // default: those of production
	Now        func() time.Time
	OlderNodes func(ctx context.Context, tx *store.Tx) (bool, error) // default: there are none
}

// SmallLimits let a few small objects be combined.
var SmallLimits = compact.Limits{Small: 10_000, AtLeast: 2, Blobs: 16}

// Connect returns the content that a database and a blob store hold.
func Connect(c Config) Contents {
	all := items.New(items.Config{DB: c.DB, Keys: c.Containers, Blobs: c.Blobs, Slots: c.Slots, Sizes: c.Sizes, OlderNodes: c.OlderNodes, ObjectlessNodes: c.OlderNodes})
	return Contents{DB: c.DB, Items: all, Contents: content.New(c.DB, all, c.Containers, c.Now), Backups: backup.New(c.DB, all, c.Containers),
		Collector: collect.New(c.DB, all, c.Now), Renewer: renew.New(c.DB, all, c.Containers, c.Slots), Compactor: compact.New(c.DB, all, SmallLimits)}
}

// Files returns all files of c by path, and after them the damaged ones. It reads them in
// pages of three. Of a file that was replaced meanwhile, the later entry counts.
func (s Contents) Files(ctx context.Context, c container.Container) (list []content.File, err error) {
	const limit = 3
	var damaged []content.File
	for after := int64(0); ; {
		page, err := s.Contents.Files(ctx, c, after, limit)
		if err != nil {
			return nil, err
		}
		n := 0
		for _, f := range page {
			if !f.Lost {
				after, n = f.ID, n+1
			}
			if f.ID = 0; f.Damaged != nil {
				damaged = append(damaged, f)
			} else {
				list = append(list, f)
			}
		}
		if n < limit {
			slices.Reverse(list)
			slices.SortStableFunc(list, func(a, b content.File) int { return strings.Compare(a.Path, b.Path) })
			return append(slices.CompactFunc(list, func(a, b content.File) bool { return a.Path == b.Path }), damaged...), nil
		}
	}
}

// Totals returns the totals of c.
func (s Contents) Totals(ctx context.Context, tx *store.Tx, c container.Container) (items, bytes int64, err error) {
	totals, err := s.Items.Totals(ctx, tx, c.Tenant, []int64{c.ID})
	return totals[c.ID].Items, totals[c.ID].Bytes, err
}

// Within runs in the transaction of a change; nil does nothing.
type Within func(tx *store.Tx) error

func run(tx *store.Tx, within []Within) error {
	for _, f := range within {
		if f != nil {
			if err := f(tx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Put stores a file.
func (s Contents) Put(ctx context.Context, c container.Container, path string, size int64, r io.Reader, within ...Within) (f content.File, err error) {
	p, err := s.PrepareFile(ctx, c, path, size, r)
	if err != nil {
		return f, err
	}
	return f, s.DB.Commit(ctx, p, func(tx *store.Tx) (err error) {
		if f, err = p.Commit(ctx, tx); err != nil {
			return err
		}
		return run(tx, within)
	})
}

// Import imports an mbox. If it fails, it returns the counts of what is stored.
func (s Contents) Import(ctx context.Context, c container.Container, size int64, r io.Reader, o content.ImportOptions, within ...Within) (done content.Imported, err error) {
	progress := o.Progress
	o.Progress = func(now content.Imported) {
		if done = now; progress != nil {
			progress(now)
		}
	}
	p, err := s.PrepareImport(ctx, c, size, r, o)
	if err != nil {
		return done, err
	}
	err = s.DB.Commit(ctx, p, func(tx *store.Tx) error {
		if _, err := p.Commit(ctx, tx); err != nil {
			return err
		}
		return run(tx, within)
	})
	if err != nil {
		err = p.Failure(err)
	}
	return done, err
}

// StopImport stops an import.
func (s Contents) StopImport(ctx context.Context, c container.Container, name string) (m content.MailImport, err error) {
	return m, s.DB.InTx(ctx, func(tx *store.Tx) (err error) {
		m, err = s.Contents.StopImport(ctx, tx, c, name)
		return err
	})
}

// Backup makes a backup, and calls made with it in its transaction.
func (s Contents) Backup(ctx context.Context, c container.Container, expires time.Time, made func(tx *store.Tx, b backup.Backup) error) error {
	p, err := s.Backups.Prepare(ctx, c, expires)
	if err != nil {
		return err
	}
	return s.DB.Commit(ctx, p, func(tx *store.Tx) error {
		if _, err := p.Commit(ctx, tx); err != nil {
			return err
		}
		return made(tx, p.Backup())
	})
}

// Restore makes a container from a backup.
func (s Contents) Restore(ctx context.Context, b backup.Backup, name string, pol int64) (c container.Container, err error) {
	p, err := s.Backups.PrepareRestore(ctx, b, name, pol)
	if err != nil {
		return c, err
	}
	return c, s.DB.Commit(ctx, p, func(tx *store.Tx) (err error) {
		c, err = p.Commit(ctx, tx)
		return err
	})
}

// Expire deletes a backup.
func (s Contents) Expire(ctx context.Context, b backup.Backup) error {
	err := s.DB.InTx(ctx, func(tx *store.Tx) error { return s.Backups.Expire(ctx, tx, b) })
	if err == nil {
		fault.Point("expire.after-commit")
	}
	return err
}

// Collect begins a collection of blobs.
func (s Contents) Collect(ctx context.Context, grace time.Duration, dryRun bool) (*collect.Collection, error) {
	c, err := s.Collector.NewCollection(grace, dryRun)
	if err != nil || dryRun {
		return c, err
	}
	return c, s.DB.InTx(ctx, func(tx *store.Tx) error { return c.Begin(ctx, tx) })
}

// CollectTenant collects the blobs of a tenant that were dropped, and orphans older than grace;
// with grace 0 all that exist now.
func (s Contents) CollectTenant(ctx context.Context, tenant int64, grace time.Duration, dryRun bool) (collect.Collected, error) {
	storetest.PassIDs()
	c, err := s.Collect(ctx, grace, dryRun)
	if err == nil {
		err = c.Tenant(ctx, tenant, nil)
	}
	if err == nil {
		err = c.End(ctx)
	}
	if err != nil {
		return collect.Collected{}, err
	}
	return c.Collected, nil
}

// Get writes bytes of the file of c at path to w, as Reader.WriteRange does.
func (s *Contents) Get(ctx context.Context, c container.Container, path string, off, n int64, w io.Writer) error {
	r, err := s.Open(ctx, c, path)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.WriteRange(ctx, off, n, w)
}

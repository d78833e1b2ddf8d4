package service

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/backup"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/operation"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// CreateBackup makes a backup of a mailbox or a site. It does not count as an access:
// the container's own key is not re-wrapped.
func (s *Service) CreateBackup(ctx context.Context, in api.CreateBackupInput) (out api.Backup, err error) {
	return do(ctx, s, api.CreateBackup.Meta, in.Body.Container, func(ctx context.Context, c *call) (api.Backup, error) {
		kind := container.Kind(in.Body.Kind)
		if kind != container.Mailbox && kind != container.Site {
			return out, fail.New(api.InvalidArgument, "kind %q must be one of mailbox, site", in.Body.Kind)
		}
		var expires time.Time
		if in.Body.Expires != nil {
			if expires = *in.Body.Expires; !expires.After(s.now()) {
				return out, fail.New(api.InvalidArgument, "the expiry time %s is in the past", expires.UTC().Format(time.RFC3339))
			}
		}
		ct, err := s.containers.Find(ctx, c.Tenant, kind, in.Body.Container)
		if err != nil {
			return out, err
		}
		defer c.queueContentCleanup(c.Tenant)
		copied, err := s.backups.Prepare(ctx, ct, expires)
		if err != nil {
			return out, err
		}
		return out, c.Commit(ctx, copied, func(tx *store.Tx) (string, error) {
			if _, err := copied.Commit(ctx, tx); err != nil {
				return "", err
			}
			out, err = c.showBackup(ctx, tx, copied.Backup())
			return "backup " + out.ID, err
		})
	})
}

// ListBackups lists backups in the order in which they were made.
func (s *Service) ListBackups(ctx context.Context, in api.ListInput) (api.List[api.Backup], error) {
	return do(ctx, s, api.ListBackups.Meta, "", func(ctx context.Context, c *call) (list api.List[api.Backup], err error) {
		if _, err := s.containers.Directory(ctx, c.Tenant); err != nil {
			return list, err
		}
		return operation.ListPage(ctx, c.Call, in.PageInput, func(tx *store.Tx, after int64, limit int) ([]operation.Row[api.Backup], error) {
			list, err := s.backups.List(ctx, tx, c.Tenant, after, limit)
			if err != nil {
				return nil, err
			}
			containers := make([]container.Listed, len(list))
			for i, b := range list {
				containers[i] = b.Listed
			}
			names, err := c.namesOf(ctx, tx, containers)
			if err != nil {
				return nil, err
			}
			return operation.RowsOf(list, func(b backup.ListedBackup) operation.Row[api.Backup] {
				if b.Damaged != nil {
					return operation.Row[api.Backup]{ID: b.ID, Err: b.Damaged}
				}
				item, err := backupOf(b.Backup, shown{b.Listed, names, b.Total})
				if err != nil {
					err = fmt.Errorf("backup %d: %w", b.ID, err)
				}
				return operation.Row[api.Backup]{ID: b.ID, Item: item, Err: err}
			}), nil
		})
	})
}

// RestoreBackup makes a mailbox or a site from a backup, under the current
// policy key of its policy.
func (s *Service) RestoreBackup(ctx context.Context, in api.RestoreBackupInput) (out api.Backup, err error) {
	return do(ctx, s, api.RestoreBackup.Meta, in.Backup, func(ctx context.Context, c *call) (api.Backup, error) {
		b, err := c.findBackup(ctx, in.Backup)
		if err != nil {
			return out, err
		}
		c.Target = b.Name + " as " + in.Body.To
		pol, err := c.restorePolicy(ctx, b, in.Body.Policy)
		if err != nil {
			return out, err
		}
		defer c.queueContentCleanup(c.Tenant)
		copied, err := s.backups.PrepareRestore(ctx, b, in.Body.To, pol)
		if err != nil {
			return out, err
		}
		var made container.Container
		err = c.Commit(ctx, copied, func(tx *store.Tx) (string, error) {
			if made, err = copied.Commit(ctx, tx); err != nil {
				return "", err
			}
			out, err = c.showBackup(ctx, tx, b)
			return "backup " + out.ID, err
		})
		if err != nil {
			return out, err
		}
		c.foldContainers(c.Tenant)
		c.foldBlobs(made)
		return out, nil
	})
}

// restorePolicy resolves the policy to assign to the restored container: the given one,
// or else that of the backup.
func (c *call) restorePolicy(ctx context.Context, b backup.Backup, identity string) (int64, error) {
	if identity != "" {
		if b.Of != container.Mailbox {
			return 0, fail.New(api.InvalidArgument, "a policy cannot be assigned to a %s", b.Of)
		}
		return c.mailboxPolicy(ctx, identity)
	}
	if b.Policy == 0 {
		return 0, nil
	}
	return b.Policy, c.db.View(ctx, func(tx *store.Tx) error {
		pol, err := c.policies.ByID(ctx, tx, c.Tenant, b.Policy)
		if err == nil && (!pol.Enabled || pol.Purge != policy.NotPurged) {
			err = fail.New(api.Conflict, "policy %q of the backed up %s no longer accepts containers", pol.Name, b.Of).
				WithHint("restore it with another policy: keyroll backup restore ID --to NAME --policy POLICY")
		}
		return err
	})
}

// ExpireBackup deletes a backup. It needs no key.
func (s *Service) ExpireBackup(ctx context.Context, in api.BackupInput) (out api.Backup, err error) {
	return do(ctx, s, api.ExpireBackup.Meta, in.Backup, func(ctx context.Context, c *call) (api.Backup, error) {
		b, err := c.findBackup(ctx, in.Backup)
		if err != nil {
			return out, err
		}
		c.Target = b.Name
		err = c.Change(ctx, func(tx *store.Tx) (string, error) {
			if out, err = c.showBackup(ctx, tx, b); err != nil {
				return "", err
			}
			return "backup " + out.ID, s.backups.Expire(ctx, tx, b)
		})
		if err != nil {
			return out, err
		}
		fault.Point("expire.after-commit")
		c.queueContentCleanup(c.Tenant)
		return out, c.retireAll(ctx, c.Tenant)
	})
}

func (c *call) findBackup(ctx context.Context, text string) (b backup.Backup, err error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return b, fail.New(api.InvalidArgument, "backup %q is not a valid backup id", text)
	}
	return b, c.db.View(ctx, func(tx *store.Tx) error {
		b, err = c.backups.ByID(ctx, tx, c.Tenant, id)
		return err
	})
}

func (c *call) showBackup(ctx context.Context, tx *store.Tx, b backup.Backup) (api.Backup, error) {
	return show(ctx, c, tx, b.Container, func(s shown) (api.Backup, error) { return backupOf(b, s) })
}

func backupOf(b backup.Backup, s shown) (out api.Backup, err error) {
	out = api.Backup{ID: fmt.Sprint(b.ID), Kind: string(b.Of), Container: b.Name, Created: b.Created.UTC(), Items: s.total.Items, Bytes: s.total.Bytes}
	if !b.Expires.IsZero() {
		expires := b.Expires.UTC()
		out.Expires = &expires
	}
	out.Protection, err = s.protection()
	return out, err
}

// expiryBatch is how many expired backups are read at a time.
const expiryBatch = 100

// queueExpiry queues a job that deletes the expired backups.
func (s *Service) queueExpiry(tenant int64) {
	s.upkeep.Add(fmt.Sprintf("expire backups of tenant %d", tenant), func(ctx context.Context) error {
		ctx = audit.WithOrigin(ctx, audit.Origin{Operation: api.ExpireBackup.Name, System: true})
		if _, err := s.containers.Directory(ctx, tenant); err != nil {
			return err
		}
		for {
			var due []backup.Backup
			err := s.db.View(ctx, func(tx *store.Tx) (err error) {
				due, err = s.backups.Due(ctx, tx, tenant, s.now(), expiryBatch)
				return err
			})
			if err != nil || len(due) == 0 {
				return err
			}
			if err := s.db.CheckTables(ctx, "backup", "container"); err != nil {
				return fmt.Errorf("expired backups are not deleted: %w", err)
			}
			var errs []error
			for _, b := range due {
				errs = append(errs, s.expireDue(ctx, b))
			}
			s.queueContentCleanup(tenant)
			if err := errors.Join(append(errs, s.retireAll(ctx, tenant))...); err != nil {
				return err
			}
		}
	})
}

// expireDue deletes a backup whose time has come.
func (s *Service) expireDue(ctx context.Context, b backup.Backup) error {
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		if err := s.backups.Expire(ctx, tx, b); err != nil {
			return err
		}
		return s.audit.Append(ctx, tx, audit.Entry{ID: store.NewID(), Tenant: b.Tenant, Outcome: audit.Done, Target: b.Name,
			Detail: fmt.Sprintf("backup %d, whose time has come", b.ID)})
	})
	if err == nil {
		fault.Point("expire.after-commit")
	}
	return err
}

// queueContentCleanup queues the removal of data left over from copies and backups.
func (s *Service) queueContentCleanup(tenant int64) {
	s.upkeep.Add(fmt.Sprintf("tidy up content of tenant %d", tenant), func(ctx context.Context) error {
		return errors.Join(s.contents.ForgetImports(ctx, tenant), s.backups.DeleteLeftoverRows(ctx, tenant))
	})
}

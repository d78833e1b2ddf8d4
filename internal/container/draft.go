package container

import (
	"context"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// Backup is the kind of a backup: a container with a frozen copy of the items of
// another one. It has the name, policy, recipient and geo of that one, has a key of
// its own, and is found by its id.
const Backup Kind = "backup"

// Draft is a container that does not exist yet. Its content is first stored under
// its id and key; PrepareDraft then makes the whole container visible.
type Draft struct {
	newContainer
	target target
}

// DraftBackup drafts a backup of c. Its key will be put under the current policy
// key of the policy of c, even if c's own key is still under an older one.
func (s *Containers) DraftBackup(ctx context.Context, c Container) (*Draft, error) {
	d, err := s.Directory(ctx, c.Tenant)
	if err != nil {
		return nil, err
	}
	b := Container{ID: store.NewID(), Tenant: c.Tenant, Kind: Backup, Name: c.Name, State: envelope.ClassBackup, Policy: c.Policy,
		Generation: 1, Created: s.now(), Recipient: c.Recipient, Geo: c.Geo}
	hash := d.Hash(string(Backup), b.ID, "")
	return &Draft{newContainer{row{Container: b, name: d.Seal(b.ID, b.Name)}, hash, envelope.NewKey()}, c.target()}, nil
}

// DraftFrom drafts a container from a backup, with a policy of its own or, with
// policy 0, the default one. A name that is taken fails AlreadyExists.
func (s *Containers) DraftFrom(ctx context.Context, backup Container, kind Kind, name string, policy int64) (*Draft, error) {
	fresh, err := s.newContainers(ctx, backup.Tenant, kind, []string{name}, policy)
	if err != nil {
		return nil, err
	}
	d := &Draft{fresh[0], fresh[0].target()}
	d.Recipient = backup.Recipient
	d.Renewed = 0    // it has the blobs of the backup,
	d.Folded = false // and its paths in the same form
	err = s.db.View(ctx, func(tx *store.Tx) error {
		_, taken, err := selectRow(ctx, tx, whereName, backup.Tenant, string(kind), d.hash)
		if err == nil && taken {
			err = fail.New(api.AlreadyExists, "%s %q exists", kind, name)
		}
		return err
	})
	d.key = envelope.NewKey()
	return d, err
}

// Opened returns the future container with a copy of its key.
func (d *Draft) Opened() Opened { return Opened{Container: d.Container, Key: d.key.Clone()} }

// Zero wipes the key.
func (d *Draft) Zero() { d.key.Zero() }

// PrepareDraft prepares to turn a draft into a container.
func (s *Containers) PrepareDraft(ctx context.Context, d *Draft) (*PreparedCreate, error) {
	return s.prepareCreate(ctx, d.target, []newContainer{d.newContainer})
}

// BackupByID returns a backup, or fails NotFound. The tenant's directory must have
// been opened before.
func (s *Containers) BackupByID(ctx context.Context, tx *store.Tx, tenant, id int64) (Container, error) {
	r, err := backupRow(ctx, tx, tenant, id)
	if err != nil {
		return Container{}, err
	}
	d := s.openDirectory(tenant)
	if d == nil {
		return Container{}, fail.New(api.Internal, "read the name of backup %d: the directory is not open", id)
	}
	return r.open(d)
}

// RemoveBackup deletes a backup and its key. That needs no policy key: the key is
// the only one in its page.
func (s *Containers) RemoveBackup(ctx context.Context, tx *store.Tx, tenant, id int64) error {
	r, err := backupRow(ctx, tx, tenant, id)
	if err != nil {
		return err
	}
	switch page, err := keypage.Get(ctx, tx, tenant, r.Page); {
	case fail.Is(err, api.NotFound): // already deleted
	case err != nil:
		return err
	case page.Class != envelope.ClassBackup || page.Count != 1:
		return fail.New(api.Damaged, "backup %d points to key page %d of class %v with %d keys", id, page.ID, page.Class, page.Count)
	default:
		if deleted, err := keypage.Delete(ctx, tx, page); err != nil {
			return err
		} else if !deleted[0] {
			return fail.New(api.Conflict, "backup %d was changed by another request", id).WithHint("try again")
		}
	}
	_, err = tx.Exec(ctx, `DELETE FROM container`+whereID, tenant, id)
	return err
}

func backupRow(ctx context.Context, tx *store.Tx, tenant, id int64) (row, error) {
	r, found, err := selectRow(ctx, tx, whereID, tenant, id)
	if err == nil && (!found || r.Kind != Backup) {
		err = fail.New(api.NotFound, "backup %d does not exist", id).WithHint("keyroll backup list shows the backups")
	}
	return r, err
}

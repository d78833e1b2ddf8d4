package container

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// Directory seals a tenant's names and texts, and computes the hashes by which
// they are found. Its key is that of a container of a class of its own under the
// service-managed policy, so names can be decrypted whatever the state of the
// customer's keys, and no roll to a customer's policy moves it.
type Directory struct {
	tenant     int64
	container  int64
	generation uint32
	key, index *envelope.Key
	folded     atomic.Bool // all sites are found by their folded names
}

// directoryHash is the name hash of a directory: there is only one per tenant, and
// without its key no other hash can be computed.
var directoryHash = []byte{}

// Bootstrap makes the tenant's directory if it does not exist.
func (s *Containers) Bootstrap(ctx context.Context, tenant int64) error {
	var found bool
	var managed int64
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		if _, found, err = selectRow(ctx, tx, whereName, tenant, string(Workload), directoryHash); err != nil || found {
			return err
		}
		// A second directory could not find any name of the first one.
		there, err := selectRows(ctx, tx, whereTenant, tenant, 0, 1)
		if err != nil {
			return err
		}
		if len(there) > 0 {
			return fail.New(api.Damaged, "the directory of tenant %d is missing, but the tenant has containers", tenant)
		}
		managed, err = s.policies.ServiceManaged(ctx, tx, tenant)
		return err
	})
	if err != nil || found {
		return err
	}
	directory := newContainer{hash: directoryHash, row: row{name: []byte{}, Container: Container{ID: store.NewID(), Tenant: tenant,
		Kind: Workload, State: envelope.ClassDirectory, Policy: managed, Generation: 1, Created: s.now(), Folded: true}}}
	err = s.create(ctx, directory.target(), []newContainer{directory})
	if fail.Is(err, api.AlreadyExists) { // another node has made it
		return nil
	}
	return err
}

// Directory returns the tenant's directory. It is opened once and kept while
// the process runs; the first call must not be made in a transaction.
func (s *Containers) Directory(ctx context.Context, tenant int64) (*Directory, error) {
	if d := s.openDirectory(tenant); d != nil {
		return d, nil
	}
	var r row
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		var found bool
		r, found, err = selectRow(ctx, tx, whereName, tenant, string(Workload), directoryHash)
		if err == nil && !found {
			err = fail.New(api.Damaged, "the directory of tenant %d is missing", tenant)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	opened, err := s.OpenKey(ctx, r.Container, policy.System)
	if err != nil {
		return nil, fmt.Errorf("open the directory of tenant %d: %w", tenant, err)
	}
	d := &Directory{tenant: tenant, container: r.ID, generation: r.Generation, key: opened.Key, index: opened.Key.Derive("name index")}
	d.folded.Store(r.Folded)
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.directories[tenant]; other != nil {
		d.zero()
		return other, nil
	}
	s.directories[tenant] = d
	return d, nil
}

// openedDirectory returns the directory within a transaction; it must have been opened
// before. act is for the error.
func (s *Containers) openedDirectory(tenant int64, act string) (*Directory, error) {
	d := s.openDirectory(tenant)
	if d == nil {
		return nil, fmt.Errorf("%s: the directory of tenant %d has not been opened", act, tenant)
	}
	return d, nil
}

func (s *Containers) openDirectory(tenant int64) *Directory {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.directories[tenant]
}

// SealText seals a text of the audit entry with the given id. It may be called in
// a transaction; the tenant's directory must have been opened before.
func (s *Containers) SealText(_ context.Context, tenant, entry int64, text string) ([]byte, error) {
	d, err := s.openedDirectory(tenant, "seal the text of an entry")
	if err != nil {
		return nil, err
	}
	return d.Seal(entry, text), nil
}

// Seal seals a name or a text of the object with the given id.
func (d *Directory) Seal(id int64, text string) []byte {
	return envelope.Seal(d.key, envelope.PurposeName, d.nameContext(id), []byte(text))
}

// Open returns what Seal sealed for the same id, or fails Damaged.
func (d *Directory) Open(id int64, sealed []byte) (string, error) {
	text, err := envelope.Open(d.key, envelope.PurposeName, d.nameContext(id), sealed)
	return string(text), err
}

func (d *Directory) nameContext(id int64) envelope.EncryptionContext {
	return envelope.EncryptionContext{Tenant: d.tenant, Parent: d.container, Generation: d.generation, Child: id, Version: 1}
}

// Hash returns the 32 bytes by which a name is found: an HMAC-SHA-256 over the kind
// of the named object, the id of the object in which the name is unique (0 for the
// tenant), and the normalised name.
func (d *Directory) Hash(what string, within int64, name string) []byte {
	return d.index.MAC([]byte(what), binary.BigEndian.AppendUint64(nil, uint64(within)), []byte(name))
}

func (d *Directory) zero() {
	d.key.Zero()
	d.index.Zero()
}

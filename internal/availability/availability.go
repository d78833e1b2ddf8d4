// Package availability is the store of availability keys: the third root of
// each policy, held by the service, outside the database.
//
// Promise: a key goes in when it is made and never comes out; what it wrapped
// opens only at the place it was wrapped for; a key is on disk before Create
// returns, and a destroyed key stays destroyed even if its file is put back.
// No function here returns key bytes.
//
// A Store on files protects against a copied database, not against a copied
// folder: whoever copies both has both.
//
// Start reading at Store.Wrap; file.go is how a key lies on disk.
package availability

import (
	"context"
	"net/url"
	"path/filepath"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// firstVersion is the version of a new key; versions count up from it.
const firstVersion = 1

// Store holds availability keys. It is safe for concurrent use, by one process.
type Store struct{ dir folder }

// Open opens the store that a URL names, file:///ABSOLUTE/PATH, and makes the
// folder when it is not there. A folder that others than its owner may use is
// refused with InvalidArgument, as is any other URL.
func Open(ctx context.Context, storeURL string) (*Store, error) {
	u, err := url.Parse(storeURL)
	if err != nil || u.Scheme != "file" || u.Host != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !filepath.IsAbs(u.Path) {
		return nil, fail.New(api.InvalidArgument, "open availability keys: %q is no store of availability keys", storeURL).
			WithHint("write file:///ABSOLUTE/PATH")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := openFolder(filepath.Clean(u.Path))
	if err != nil {
		return nil, err
	}
	return &Store{dir: dir}, nil
}

// Create makes a key for a tenant. It is durable when Create returns.
func (s *Store) Create(ctx context.Context, tenant int64) (id int64, version uint32, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	id = store.NewID()
	key := envelope.NewKey()
	defer key.Zero()
	if err := s.dir.write(record{tenant: tenant, id: id, version: firstVersion, key: key}); err != nil {
		return 0, 0, err
	}
	return id, firstVersion, nil
}

// Wrap seals a policy key, or the bundle of one, under a version of a key. The
// caller's place names tenant and policy key (Child); the store itself puts the
// availability key and its version in as Parent and Generation. It fails with
// NotFound when the tenant has no such key, VaultDenied when it was destroyed,
// and Damaged when its file is.
func (s *Store) Wrap(ctx context.Context, id int64, version uint32, place envelope.Place, plaintext []byte) ([]byte, error) {
	key, err := s.key(ctx, place.Tenant, id, version)
	if err != nil {
		return nil, err
	}
	defer key.Zero()
	place.Parent, place.Generation = id, version
	return envelope.Seal(key, envelope.PurposePolicyKey, place, plaintext), nil
}

// Open returns what Wrap was given for the same place, and fails as Wrap does;
// a wrap made for another place or altered is Damaged. The caller clears the
// result.
func (s *Store) Open(ctx context.Context, id int64, version uint32, place envelope.Place, wrapped []byte) ([]byte, error) {
	key, err := s.key(ctx, place.Tenant, id, version)
	if err != nil {
		return nil, err
	}
	defer key.Zero()
	place.Parent, place.Generation = id, version
	return envelope.Open(key, envelope.PurposePolicyKey, place, wrapped)
}

// Destroy ends a key in all its versions; it is durable when Destroy returns.
// Destroying a destroyed key does nothing; one that never was is NotFound.
func (s *Store) Destroy(ctx context.Context, id int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.dir.destroy(id)
}

// key reads a version of a tenant's key. The caller zeroes it.
func (s *Store) key(ctx context.Context, tenant, id int64, version uint32) (*envelope.Key, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := s.dir.read(id, version)
	if err != nil {
		return nil, err
	}
	if r.tenant != tenant {
		r.key.Zero()
		return nil, notFound(id, version) // whose it is, is not told
	}
	return r.key, nil
}

func notFound(id int64, version uint32) error {
	return fail.New(api.NotFound, "availability key %d version %d is not in the store of availability keys", id, version).
		WithHint("check that --availability names the store that this database was used with")
}

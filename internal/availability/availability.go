// Package availability is the store of availability keys: the third root of
// each policy, held by the service, outside the database.
//
// Promise: a key goes in when it is made and never comes out; what a version
// wrapped opens under that version alone; a version is durable before Create or
// Add returns, and what was destroyed is not made use of again. No function
// here returns key bytes.
//
// A store has one of two forms. In files the keys stand in the clear: that
// protects against a copied database, not against a copied folder; whoever
// copies both has both. In a vault of the operator's own nobody can read a key,
// and who has copied everything else can open nothing without that vault.
//
// Start reading at Store; file.go is how a key lies on disk, vault.go how it
// stands in a vault.
package availability

import (
	"context"
	"net/url"
	"path/filepath"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/files"
	"keyroll/internal/store"
)

// firstVersion is the version of a new key; versions count up from it.
const firstVersion = 1

// Store holds availability keys. It is safe for concurrent use; in files, by
// one process.
type Store struct{ form form }

// form is how availability keys are kept.
type form interface {
	// add makes a version of a key unless it is there.
	add(ctx context.Context, tenant, id int64, version uint32) error
	wrap(ctx context.Context, id int64, version uint32, place envelope.Place, plaintext []byte) ([]byte, error)
	open(ctx context.Context, id int64, version uint32, place envelope.Place, wrapped []byte) ([]byte, error)
	destroy(ctx context.Context, id int64) error
	destroyVersion(ctx context.Context, id int64, version uint32) error
	close()
}

// Open opens the store that a URL names: file:///ABSOLUTE/PATH, a folder that
// is made when it is not there, or https://VAULT, a vault of the operator's own,
// which is not asked yet. A folder that others than its owner may use is refused
// with InvalidArgument, as is any other URL.
func Open(ctx context.Context, storeURL string) (*Store, error) {
	u, err := url.Parse(storeURL)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, noStore(storeURL)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var f form
	switch {
	case u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path):
		f, err = openFolder(files.OS, filepath.Clean(u.Path))
	case u.Scheme == "https" && u.Hostname() != "" && (u.Path == "" || u.Path == "/"):
		f, err = openVault(u.Host)
	default:
		return nil, noStore(storeURL)
	}
	if err != nil {
		return nil, err
	}
	return &Store{form: f}, nil
}

func noStore(storeURL string) error {
	return fail.New(api.InvalidArgument, "open availability keys: %q is not a valid store of availability keys", storeURL).
		WithHint("write file:///ABSOLUTE/PATH, or https://VAULT for a vault of your own")
}

// Create makes a key for a tenant, in its first version.
func (s *Store) Create(ctx context.Context, tenant int64) (id int64, version uint32, err error) {
	id = store.NewID()
	if err := s.form.add(ctx, tenant, id, firstVersion); err != nil {
		return 0, 0, err
	}
	return id, firstVersion, nil
}

// Add makes a version of a tenant's key, the caller saying which. One that is
// there already stays as it is: it may be what a roll made that came to an end
// before it wrapped anything.
func (s *Store) Add(ctx context.Context, tenant, id int64, version uint32) error {
	return s.form.add(ctx, tenant, id, version)
}

// Wrap seals the bundle of a policy key under a version of a key. The caller's
// place names tenant and policy key (Child); the store itself puts the
// availability key and its version in as Parent and Generation. Files bind the
// wrap to its place; RSA as vaults offer it has no additional data, and there
// the bundle itself says where it belongs.
//
// It fails with VaultDenied when the key was destroyed, or when its vault
// refuses; NotFound when the tenant has no such key, which a vault cannot tell
// from a destroyed one; Damaged when its file is; VaultUnavailable when the
// store is away.
func (s *Store) Wrap(ctx context.Context, id int64, version uint32, place envelope.Place, plaintext []byte) ([]byte, error) {
	place.Parent, place.Generation = id, version
	return s.form.wrap(ctx, id, version, place, plaintext)
}

// Open returns what Wrap was given, and fails as Wrap does; an altered wrap is
// Damaged. One that another version made opens nothing: in files it is Damaged
// too, a vault does not find what it names. The caller clears the result.
func (s *Store) Open(ctx context.Context, id int64, version uint32, place envelope.Place, wrapped []byte) ([]byte, error) {
	place.Parent, place.Generation = id, version
	return s.form.open(ctx, id, version, place, wrapped)
}

// Destroy ends a key in all its versions; it is durable when Destroy returns
// nil, and not before. Destroying a destroyed key does nothing. In files, one
// that never was is NotFound. A vault with purge protection gives a key up only
// when its retention ends: until then it is Conflict, with the date.
func (s *Store) Destroy(ctx context.Context, id int64) error { return s.form.destroy(ctx, id) }

// DestroyVersion ends one version of a key, as Destroy does all.
func (s *Store) DestroyVersion(ctx context.Context, id int64, version uint32) error {
	return s.form.destroyVersion(ctx, id, version)
}

// Close ends what the store holds open.
func (s *Store) Close() { s.form.close() }

func notFound(id int64, version uint32) error {
	return fail.New(api.NotFound, "availability key %d version %d is not in the store of availability keys", id, version).
		WithHint("check that --availability names the store that this database was used with")
}

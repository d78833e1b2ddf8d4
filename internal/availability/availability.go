// Package availability is the store of availability keys: the third root of each
// policy, held by the service, outside the database.
//
// It guarantees that a stored key never leaves the store; that a wrap can be decrypted
// only with the version that made it; that a version is durable before Create or Add
// returns; and that a destroyed key or version is never used again. No function here
// returns key bytes.
//
// A store has one of two backends. In files the keys are not encrypted: that protects
// against a copied database, but not against someone who copies the folder too. From a
// vault of the operator no key can be read, and a copy of everything else can be
// decrypted only with access to that vault.
//
// Start reading at Store; file.go has the format of a key on disk, vault.go the keys in
// a vault.
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

// Store holds availability keys. It is safe for concurrent use; with files, by one
// process.
type Store struct{ backend backend }

// backend stores availability keys.
type backend interface {
	// add creates a version of a key unless it exists.
	add(ctx context.Context, tenant, id int64, version uint32) error
	wrap(ctx context.Context, id int64, version uint32, ec envelope.EncryptionContext, plaintext []byte) ([]byte, error)
	open(ctx context.Context, id int64, version uint32, ec envelope.EncryptionContext, wrapped []byte) ([]byte, error)
	destroy(ctx context.Context, id int64) error
	destroyVersion(ctx context.Context, id int64, version uint32) error
	close()
}

// Open opens the store that a URL names: file:///ABSOLUTE/PATH, a folder, which is
// created if it does not exist, or https://VAULT, a vault of the operator, which is not
// called yet. A folder to which users other than its owner have access is refused with
// InvalidArgument, as is any other URL.
func Open(ctx context.Context, storeURL string) (*Store, error) {
	u, err := url.Parse(storeURL)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, invalidStore(storeURL)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var b backend
	switch {
	case u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path):
		b, err = openFolder(files.OS, filepath.Clean(u.Path))
	case u.Scheme == "https" && u.Hostname() != "" && (u.Path == "" || u.Path == "/"):
		b, err = openVault(u.Host)
	default:
		return nil, invalidStore(storeURL)
	}
	if err != nil {
		return nil, err
	}
	return &Store{backend: b}, nil
}

func invalidStore(storeURL string) error {
	return fail.New(api.InvalidArgument, "open availability keys: %q is not a valid store of availability keys", storeURL).
		WithHint("write file:///ABSOLUTE/PATH, or https://VAULT for a vault of your own")
}

// Create creates a key for a tenant, in its first version.
func (s *Store) Create(ctx context.Context, tenant int64) (id int64, version uint32, err error) {
	id = store.NewID()
	if err := s.backend.add(ctx, tenant, id, firstVersion); err != nil {
		return 0, 0, err
	}
	return id, firstVersion, nil
}

// Add creates the given version of a tenant's key. An existing version is not changed:
// it may come from a roll that was interrupted before it wrapped anything.
func (s *Store) Add(ctx context.Context, tenant, id int64, version uint32) error {
	return s.backend.add(ctx, tenant, id, version)
}

// Wrap seals the bundle of a policy key under a version of a key. The caller's ec names
// tenant and policy key (Child); the store sets the availability key and its version as
// Parent and Generation. With files the wrap is bound to this encryption context; RSA in
// vaults has no additional data, so there only the binding in the bundle says where it
// belongs.
//
// It fails with VaultDenied if the key was destroyed, or if its vault refuses; NotFound
// if the tenant has no such key, which a vault cannot distinguish from a destroyed one;
// Damaged if the key's file is damaged; VaultUnavailable if the store is unavailable.
func (s *Store) Wrap(ctx context.Context, id int64, version uint32, ec envelope.EncryptionContext, plaintext []byte) ([]byte, error) {
	ec.Parent, ec.Generation = id, version
	return s.backend.wrap(ctx, id, version, ec, plaintext)
}

// Open returns the plaintext of a wrap, and fails as Wrap does; an altered wrap is
// Damaged. A wrap of another version cannot be decrypted: with files it is Damaged too,
// in a vault the key version that it names is not found. The caller must clear the
// result.
func (s *Store) Open(ctx context.Context, id int64, version uint32, ec envelope.EncryptionContext, wrapped []byte) ([]byte, error) {
	ec.Parent, ec.Generation = id, version
	return s.backend.open(ctx, id, version, ec, wrapped)
}

// Destroy destroys all versions of a key; that is durable only when Destroy returns
// nil. Destroying a destroyed key does nothing. With files, a key that never existed is
// NotFound. A vault with purge protection keeps a key until its retention ends: until
// then Destroy fails with Conflict, with the date.
func (s *Store) Destroy(ctx context.Context, id int64) error { return s.backend.destroy(ctx, id) }

// DestroyVersion destroys one version of a key, as Destroy does all.
func (s *Store) DestroyVersion(ctx context.Context, id int64, version uint32) error {
	return s.backend.destroyVersion(ctx, id, version)
}

// Close closes the store's connections.
func (s *Store) Close() { s.backend.close() }

func notFound(id int64, version uint32) error {
	return fail.New(api.NotFound, "availability key %d version %d is not in the store of availability keys", id, version).
		WithHint("check that --availability names the store that this database was used with")
}

// Package access authenticates and authorizes callers: it has the tenants, their
// principals, and the tokens of principals.
//
// A request is authenticated by a bearer token of one of two kinds: an opaque token of
// an admin, or a signed token, valid for one hour, that the token endpoint issues to a
// client that presents its secret: keyroll itself, or an application of the customer. Roles are read from the database at each request,
// so that a revoked role takes effect at once. A secret that is only compared is stored
// as the SHA-256 hash of its 32 random bytes. Secrets that the service itself needs,
// those of its own principals and the first admin token, are stored under the seal.
// Start reading at Directory.AuthenticateFor; login.go is the token endpoint.
package access

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/seal"
	"keyroll/internal/store"
)

// Service is the role of keyroll itself as a principal of a tenant: it permits no operation,
// and management of vaults to be read.
const Service api.Role = "service"

// Application ids of the service's principals, the same in every tenant
// (Customer Key set-up documentation).
var (
	Exchange             = uuid.MustParse("00000002-0000-0ff1-ce00-000000000000")
	SharePoint           = uuid.MustParse("00000003-0000-0ff1-ce00-000000000000")
	DataAtRestEncryption = uuid.MustParse("c066d759-24ae-40e7-a56f-027002b5d3e4")
)

// Kind says how a principal authenticates.
type Kind string

const (
	// ByService is a principal that keyroll makes with each tenant.
	ByService Kind = ""
	// ByToken is a principal for which another principal made a token.
	ByToken Kind = "token"
	// ByCode is an approver who has not enrolled yet: its token is a one-time code.
	ByCode Kind = "code"
	// ByEnrolment is an approver whose token replaced a one-time code.
	ByEnrolment Kind = "approver"
	// ByApplication is a program that logs in with secrets of its own.
	ByApplication Kind = "application"
)

// Principal is an authenticated caller.
type Principal struct {
	ID     uuid.UUID // application id and object id
	Tenant int64
	Name   string
	Roles  []api.Role
	Kind   Kind
	// Issuers are those who made its secret and handed it over, the last one first, each
	// followed by those behind its own secret; empty: the service.
	Issuers []uuid.UUID
	Created time.Time
	Expires time.Time // zero: never
	Used    time.Time // when its token was last used, to the minute; zero: never
}

// Check returns fail Forbidden, naming the principal and the roles, unless the principal has
// one of the roles.
func (p Principal) Check(roles ...api.Role) error {
	if p.HasAny(roles...) {
		return nil
	}
	return fail.New(api.Forbidden, "principal %q (%s) has none of the roles that permit this: %s", p.Name, p.ID, api.JoinRoles(roles, ", "))
}

// HasAny reports whether the principal has one of the roles.
func (p Principal) HasAny(roles ...api.Role) bool {
	return slices.ContainsFunc(p.Roles, func(r api.Role) bool { return slices.Contains(roles, r) })
}

// ServiceAudience is the audience of tokens for keyroll's own interfaces, the
// service API and the management of vaults.
const ServiceAudience = "keyroll"

// adminTokenPrefix marks an opaque token; secrets without it are not bearer tokens.
const adminTokenPrefix = "kr_"

// Directory holds the principals of all tenants and issues their tokens. It is
// safe for concurrent use.
type Directory struct {
	db          *store.DB
	seal        *seal.Seal
	vaultDomain string // lower case
	now         func() time.Time
	log         *slog.Logger
	signer      ed25519.PrivateKey
	signerID    string
	signed      signed
}

// Config is what a Directory works with.
type Config struct {
	DB          *store.DB
	Seal        *seal.Seal
	VaultDomain string // of the embedded vaults, such as vault.localhost
	Now         func() time.Time
	Logger      *slog.Logger
}

// Open returns the directory in a database. Its token-signing key is created at the first
// start and stored under the seal, so that every node accepts every node's tokens.
func Open(ctx context.Context, c Config) (*Directory, error) {
	var seed []byte
	err := c.DB.InTx(ctx, func(tx *store.Tx) (err error) {
		seed, err = seal.Secret(ctx, tx, c.Seal, "token signing key", func() ([]byte, error) {
			return randomBytes(ed25519.SeedSize), nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	d := &Directory{
		db: c.DB, seal: c.Seal, vaultDomain: strings.ToLower(c.VaultDomain), now: c.Now, log: c.Logger,
		signer: ed25519.NewKeyFromSeed(seed),
	}
	d.signed.key = d.signer.Public().(ed25519.PublicKey)
	digest := sha256.Sum256(d.signed.key)
	d.signerID = hex.EncodeToString(digest[:8])
	return d, nil
}

// Principal returns one principal of a tenant; fail NotFound.
func (d *Directory) Principal(ctx context.Context, tx *store.Tx, tenant int64, id uuid.UUID) (Principal, error) {
	p, _, err := findPrincipal(ctx, tx, tenant, id)
	return p, err
}

// ClientSecret returns the secret by which the service logs in as one of its
// own principals of a tenant: Exchange, SharePoint or DataAtRestEncryption.
func (d *Directory) ClientSecret(ctx context.Context, tenant int64, id uuid.UUID) (string, error) {
	return d.storedSecret(ctx, clientSecretName(tenant, id))
}

// AdminToken returns the opaque bearer token of the admin that was created with the
// tenant.
func (d *Directory) AdminToken(ctx context.Context, tenant int64) (string, error) {
	return d.storedSecret(ctx, adminTokenName(tenant))
}

// storedSecret returns a secret that is stored under the seal.
func (d *Directory) storedSecret(ctx context.Context, name string) (string, error) {
	var secret []byte
	err := d.db.View(ctx, func(tx *store.Tx) (err error) {
		secret, err = seal.Secret(ctx, tx, d.seal, name, func() ([]byte, error) {
			return nil, fail.New(api.NotFound, "secret %q does not exist", name)
		})
		return err
	})
	return string(secret), err
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// newSecret returns 32 random bytes as text.
func newSecret(prefix string) []byte {
	return []byte(prefix + hex.EncodeToString(randomBytes(32)))
}

package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Application is a program that uses vaults. It logs in at the token endpoint with any of
// its secrets, and may do what the access policies of vaults permit it.
type Application struct {
	Principal
	Credentials []Credential // the oldest first
}

// Credential is a secret of an application, of which only the hash is stored.
type Credential struct {
	ID      uuid.UUID
	Name    string // may be empty
	Created time.Time
	Expires time.Time

	principal uuid.UUID
	hash      []byte
}

// maxCredentials bounds the secrets of an application, which are all compared at a login.
const maxCredentials = 20

const (
	insertCredential   = `INSERT INTO credential (tenant, id, principal, name, hash, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)`
	credentialColumns  = `SELECT id, principal, name, hash, created, expires FROM credential WHERE tenant = ?1`
	selectCredentials  = credentialColumns + ` ORDER BY created, id`
	selectCredentialOf = credentialColumns + ` AND principal = ?2 ORDER BY created, id`
	deleteCredential   = `DELETE FROM credential WHERE tenant = ?1 AND principal = ?2 AND id = ?3`
	deleteCredentials  = `DELETE FROM credential WHERE tenant = ?1 AND principal = ?2`
)

// CreateApplication adds an application without a secret, which issuer makes. It fails
// AlreadyExists if another principal of the tenant has the name.
func (d *Directory) CreateApplication(ctx context.Context, tx *store.Tx, tenant int64, name string, issuer uuid.UUID) (Application, error) {
	p := Principal{Tenant: tenant, Name: name, Roles: []api.Role{api.Application}, Kind: ByApplication, Created: time.UnixMilli(d.now().UnixMilli())}
	p, err := d.addNamed(ctx, tx, p, issuer, randomBytes(32)) // a secret that nothing knows
	return Application{Principal: p}, err
}

// AddCredential adds a secret to an application and returns it. It cannot be returned again.
func (d *Directory) AddCredential(ctx context.Context, tx *store.Tx, a Application, name string, expires time.Time) (Credential, string, error) {
	// A removal of the application waits here, or has happened.
	if err := tx.Lock(ctx, a.Tenant, true); err != nil {
		return Credential{}, "", err
	}
	a, err := d.FindApplication(ctx, tx, a.Tenant, a.ID.String())
	if err != nil {
		return Credential{}, "", err
	}
	if name != "" {
		if err := checkName("add secret", name); err != nil {
			return Credential{}, "", err
		}
	}
	if !expires.After(d.now()) {
		return Credential{}, "", fail.New(api.InvalidArgument, "the secret would expire in the past, at %s", expires.UTC().Format(time.RFC3339))
	}
	if len(a.Credentials) >= maxCredentials {
		return Credential{}, "", fail.New(api.Conflict, "application %q has %d secrets, which is the most", a.Name, maxCredentials).
			WithHint("remove those that are no longer used: keyroll application secret remove")
	}
	secret := newSecret("")
	defer clear(secret)
	c := Credential{ID: uuid.New(), Name: name, Created: time.UnixMilli(d.now().UnixMilli()), Expires: time.UnixMilli(expires.UnixMilli()),
		principal: a.ID, hash: hashSecret(string(secret))}
	_, err = tx.Exec(ctx, insertCredential, a.Tenant, c.ID.String(), a.ID.String(), name, c.hash, c.Created.UnixMilli(), c.Expires.UnixMilli())
	if err != nil {
		return Credential{}, "", err
	}
	return c, string(secret), nil
}

// RemoveCredential removes a secret of an application; fail NotFound. Tokens that were
// issued for it remain valid until they expire.
func (d *Directory) RemoveCredential(ctx context.Context, tx *store.Tx, tenant int64, application, credential uuid.UUID) error {
	n, err := tx.Exec(ctx, deleteCredential, tenant, application.String(), credential.String())
	if err == nil && n == 0 {
		err = fail.New(api.NotFound, "the application has no secret %s", credential)
	}
	return err
}

// RemoveApplication removes an application with its secrets. Its tokens are refused from
// then on.
func (d *Directory) RemoveApplication(ctx context.Context, tx *store.Tx, a Application) error {
	if err := tx.Lock(ctx, a.Tenant, true); err != nil {
		return err
	}
	if err := d.Revoke(ctx, tx, a.Principal); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, deleteCredentials, a.Tenant, a.ID.String())
	return err
}

// Applications returns the applications of a tenant, the oldest first.
func (d *Directory) Applications(ctx context.Context, tx *store.Tx, tenant int64) ([]Application, error) {
	all, err := d.Principals(ctx, tx, tenant)
	if err != nil {
		return nil, err
	}
	credentials, err := store.Collect(ctx, tx, scanCredential, selectCredentials, tenant)
	if err != nil {
		return nil, fmt.Errorf("read the secrets of applications: %w", err)
	}
	of := map[uuid.UUID][]Credential{}
	for _, c := range credentials {
		of[c.principal] = append(of[c.principal], c)
	}
	var list []Application
	for _, p := range all {
		if p.Kind == ByApplication {
			list = append(list, Application{p, of[p.ID]})
		}
	}
	return list, nil
}

// FindApplication returns an application by its name, case-insensitively, or its id; fail
// NotFound.
func (d *Directory) FindApplication(ctx context.Context, tx *store.Tx, tenant int64, identity string) (Application, error) {
	p, err := d.FindPrincipal(ctx, tx, tenant, identity)
	if fail.Is(err, api.NotFound) || err == nil && p.Kind != ByApplication {
		return Application{}, fail.New(api.NotFound, "application %.80q does not exist in this tenant", identity).WithHint("keyroll application list shows them")
	}
	if err != nil {
		return Application{}, err
	}
	credentials, err := credentialsOf(ctx, tx, tenant, p.ID)
	return Application{p, credentials}, err
}

func credentialsOf(ctx context.Context, tx *store.Tx, tenant int64, application uuid.UUID) ([]Credential, error) {
	list, err := store.Collect(ctx, tx, scanCredential, selectCredentialOf, tenant, application.String())
	if err != nil {
		return nil, fmt.Errorf("read the secrets of application %s: %w", application, err)
	}
	return list, nil
}

func scanCredential(row store.Scanner) (c Credential, err error) {
	var id, principal string
	var created, expires int64
	if err := row.Scan(&id, &principal, &c.Name, &c.hash, &created, &expires); err != nil {
		return c, err
	}
	c.Created, c.Expires = time.UnixMilli(created), time.UnixMilli(expires)
	if c.principal, err = uuid.Parse(principal); err != nil {
		return c, err
	}
	c.ID, err = uuid.Parse(id)
	return c, err
}

// errExpired is why the right secret of an application is refused.
var errExpired = errors.New("the secret has expired")

// checkSecret returns the principal if the secret is its own. Otherwise it fails with
// Unauthenticated, because of errExpired if it was until it expired, and with the same
// message, after the same work, for an unknown principal and a wrong secret.
func (d *Directory) checkSecret(ctx context.Context, tenant int64, id uuid.UUID, secret string) (Principal, error) {
	var p Principal
	var hash []byte // none of an unknown principal
	var credentials []Credential
	err := d.db.View(ctx, func(tx *store.Tx) (err error) {
		p, hash, err = findPrincipal(ctx, tx, tenant, id)
		if err != nil && !fail.Is(err, api.NotFound) {
			return err
		}
		credentials, err = credentialsOf(ctx, tx, tenant, id)
		return err
	})
	if err != nil {
		return Principal{}, err
	}
	// A token of any other kind is no client secret: a signed token would outlive its expiry
	// and its replacement, and one for a one-time code would outlive the enrolment.
	valid, expired := sameHash(hash, secret) && p.Kind == ByService, false
	for _, c := range credentials {
		if sameHash(c.hash, secret) {
			valid = d.now().Before(c.Expires)
			expired = !valid
		}
	}
	switch {
	case valid:
		return p, nil
	case expired:
		return Principal{}, fail.New(api.Unauthenticated, "the secret of client %s has expired", id).Because(errExpired)
	}
	return Principal{}, fail.New(api.Unauthenticated, "client %s is unknown in this tenant or its secret is wrong", id)
}

package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/seal"
	"keyroll/internal/store"
)

// AddToken adds a principal with a token of its own, which issuer receives. Only the hash of
// the token is stored, so the token cannot be returned again. The principal's name, roles and
// expiry, zero for never, are those of p; it fails AlreadyExists if another one in the tenant
// has the name.
func (d *Directory) AddToken(ctx context.Context, tx *store.Tx, p Principal, issuer uuid.UUID) (Principal, string, error) {
	token := newSecret(adminTokenPrefix)
	defer clear(token)
	p, err := d.addNamed(ctx, tx, p, issuer, token)
	if err != nil {
		return p, "", err
	}
	return p, string(token), nil
}

// addNamed stores a principal whose name no other one in the tenant has.
func (d *Directory) addNamed(ctx context.Context, tx *store.Tx, p Principal, issuer uuid.UUID, secret []byte) (Principal, error) {
	if err := checkName("add principal", p.Name); err != nil {
		return p, err
	}
	// Of two concurrent requests with one name, the second waits here and finds the first.
	if err := tx.Lock(ctx, p.Tenant, true); err != nil {
		return p, err
	}
	if other, err := d.named(ctx, tx, p.Tenant, p.Name); err == nil {
		return p, fail.New(api.AlreadyExists, "%q exists", other.Name)
	} else if !fail.Is(err, api.NotFound) {
		return p, err
	}
	p.ID = uuid.New()
	var err error
	if p.Issuers, err = d.Behind(ctx, tx, p.Tenant, issuer); err != nil {
		return p, err
	}
	return p, d.insert(ctx, tx, p, secret)
}

// Renew replaces the token of a principal, and returns the new one. If another principal
// receives it, that is its last issuer from now on.
func (d *Directory) Renew(ctx context.Context, tx *store.Tx, p Principal, by uuid.UUID, expires time.Time) (string, error) {
	if by != p.ID {
		known, err := d.Behind(ctx, tx, p.Tenant, by)
		if err != nil {
			return "", err
		}
		for _, earlier := range p.Issuers {
			if !slices.Contains(known, earlier) {
				known = append(known, earlier)
			}
		}
		p.Issuers = known
	}
	p.Expires = expires
	return d.replaceSecret(ctx, tx, p)
}

// Enrol replaces the one-time code of an approver by a token that no other person has seen.
func (d *Directory) Enrol(ctx context.Context, tx *store.Tx, p Principal) (Principal, string, error) {
	if p.Kind != ByCode {
		return p, "", fail.New(api.Conflict, "%q has enrolled already", p.Name).WithHint("keyroll token rotate gives a new token")
	}
	p.Roles = []api.Role{api.Approver}
	p.Kind, p.Expires, p.Created = ByEnrolment, time.Time{}, time.UnixMilli(d.now().UnixMilli())
	token, err := d.replaceSecret(ctx, tx, p)
	return p, token, err
}

// replaceSecret stores p with a new token.
func (d *Directory) replaceSecret(ctx context.Context, tx *store.Tx, p Principal) (string, error) {
	_, hash, err := findPrincipal(ctx, tx, p.Tenant, p.ID)
	if err != nil {
		return "", err
	}
	token := newSecret(adminTokenPrefix)
	defer clear(token)
	n, err := tx.Exec(ctx, updateSecret, p.Tenant, p.ID.String(), hashSecret(string(token)), p.Kind, joinIDs(p.Issuers), p.Created.UnixMilli(), store.MilliOrZero(p.Expires), joinRoles(p.Roles), hash)
	if err == nil && n == 0 {
		err = store.ErrOutdated
	}
	return string(token), err
}

// Revoke makes a principal's token invalid. Its name remains with what it did.
func (d *Directory) Revoke(ctx context.Context, tx *store.Tx, p Principal) error {
	n, err := tx.Exec(ctx, revokePrincipal, p.Tenant, p.ID.String(), randomBytes(32), d.now().UnixMilli())
	if err == nil && n == 0 {
		err = fail.New(api.NotFound, "%q was revoked already", p.Name)
	}
	return err
}

// Principals returns the principals of a tenant that are not revoked, the oldest first.
func (d *Directory) Principals(ctx context.Context, tx *store.Tx, tenant int64) ([]Principal, error) {
	return collectPrincipals(ctx, tx, selectPrincipals, tenant)
}

// AllPrincipals is Principals with those that are revoked, whose names are still needed.
func (d *Directory) AllPrincipals(ctx context.Context, tx *store.Tx, tenant int64) ([]Principal, error) {
	return collectPrincipals(ctx, tx, selectAllPrincipals, tenant)
}

func collectPrincipals(ctx context.Context, tx *store.Tx, query string, tenant int64) ([]Principal, error) {
	return store.Collect(ctx, tx, func(row store.Scanner) (Principal, error) {
		p, _, err := scanPrincipal(row)
		return p, err
	}, query, tenant)
}

// FindPrincipal returns a principal of a tenant by its name, case-insensitively, or its id;
// fail NotFound.
func (d *Directory) FindPrincipal(ctx context.Context, tx *store.Tx, tenant int64, identity string) (Principal, error) {
	if id, err := uuid.Parse(identity); err == nil {
		return d.Principal(ctx, tx, tenant, id)
	}
	return d.named(ctx, tx, tenant, identity)
}

func (d *Directory) named(ctx context.Context, tx *store.Tx, tenant int64, name string) (Principal, error) {
	all, err := d.Principals(ctx, tx, tenant)
	if err != nil {
		return Principal{}, err
	}
	for _, p := range all {
		if p.Kind != ByService && strings.EqualFold(p.Name, name) {
			return p, nil
		}
	}
	return Principal{}, fail.New(api.NotFound, "no token or approver of this tenant is named %.80q", name).WithHint("keyroll token list shows them")
}

// Behind returns a principal and everyone who has seen its secret, or the secret of one of
// them, as far as they are of the tenant: an issuer of another tenant is the last one. For
// uuid.Nil, the service, it returns none.
func (d *Directory) Behind(ctx context.Context, tx *store.Tx, tenant int64, id uuid.UUID) ([]uuid.UUID, error) {
	if id == uuid.Nil {
		return nil, nil
	}
	p, _, err := scanPrincipal(tx.QueryRow(ctx, selectEveryPrincipal, tenant, id.String()))
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("find who issued the token of %s: %w", id, err)
	}
	return append([]uuid.UUID{id}, p.Issuers...), nil
}

// add stores p and a new secret for it under the seal.
func (d *Directory) add(ctx context.Context, tx *store.Tx, p Principal, secretName, prefix string) error {
	secret, err := seal.Secret(ctx, tx, d.seal, secretName, func() ([]byte, error) { return newSecret(prefix), nil })
	if err != nil {
		return err
	}
	defer clear(secret)
	return d.insert(ctx, tx, p, secret)
}

// insert stores p with the hash of its secret.
func (d *Directory) insert(ctx context.Context, tx *store.Tx, p Principal, secret []byte) error {
	_, err := tx.Exec(ctx, insertPrincipal, p.Tenant, p.ID.String(), p.Name, joinRoles(p.Roles),
		hashSecret(string(secret)), d.now().UnixMilli(), p.Kind, joinIDs(p.Issuers), store.MilliOrZero(p.Expires))
	return err
}

// checkName is the rule for names of tenants and principals.
func checkName(act, name string) error {
	if name == "" || len(name) > 256 || strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl) || !utf8.ValidString(name) {
		return fail.New(api.InvalidArgument, "%s: the name must be 1 to 256 bytes of UTF-8, without control characters and without spaces at its ends", act)
	}
	return nil
}

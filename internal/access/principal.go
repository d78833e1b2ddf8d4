package access

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/seal"
	"keyroll/internal/store"
)

// AddPrincipal adds a principal with a token of its own to a tenant. Only the hash of
// the token is stored, so the token cannot be returned again.
func (d *Directory) AddPrincipal(ctx context.Context, tx *store.Tx, tenant int64, name string, roles ...Role) (Principal, string, error) {
	if err := checkName("add principal", name); err != nil {
		return Principal{}, "", err
	}
	p := Principal{ID: uuid.New(), Tenant: tenant, Name: name, Roles: roles}
	token := newSecret(adminTokenPrefix)
	defer clear(token)
	return p, string(token), d.insert(ctx, tx, p, token)
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
		hashSecret(string(secret)), d.now().UnixMilli())
	return err
}

// checkName is the rule for names of tenants and principals.
func checkName(act, name string) error {
	if name == "" || len(name) > 256 || strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl) || !utf8.ValidString(name) {
		return fail.New(api.InvalidArgument, "%s: the name must be 1 to 256 bytes of UTF-8, without control characters and without spaces at its ends", act)
	}
	return nil
}

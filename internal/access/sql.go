package access

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

const (
	insertTenant = `INSERT INTO tenant (id, tenant, guid, name, created) VALUES (?1, ?1, ?2, ?3, ?4)
		ON CONFLICT (name) DO NOTHING`
	selectTenant     = `SELECT id, guid, name, created FROM tenant`
	tenantByID       = selectTenant + ` WHERE id = ?1`
	tenantByGUID     = selectTenant + ` WHERE guid = ?1`
	unmadeTenant     = selectTenant + ` WHERE name = ?1 AND made = 0`
	madeTenant       = selectTenant + ` WHERE (name = ?1 OR guid = ?2) AND made = 1`
	madeTenants      = selectTenant + ` WHERE id > ?1 AND made = 1 ORDER BY id LIMIT ?2`
	firstTenant      = selectTenant + ` ORDER BY id LIMIT 1`
	updateTenantMade = `UPDATE tenant SET made = 1 WHERE id = ?1 AND made = 0`

	insertPrincipal = `INSERT INTO principal (tenant, id, name, roles, secret_hash, created)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6)`
	selectPrincipal   = `SELECT tenant, id, name, roles, secret_hash FROM principal WHERE tenant = ?1 AND id = ?2`
	selectPrincipalOf = `SELECT p.tenant, p.id, p.name, p.roles, p.secret_hash FROM tenant t JOIN principal p ON p.tenant = t.id
		WHERE t.guid = ?1 AND p.id = ?2`
	selectPrincipals        = `SELECT id, name, roles, created FROM principal WHERE tenant = ?1 ORDER BY created, id`
	selectPrincipalBySecret = `SELECT tenant, id, name, roles, secret_hash FROM principal WHERE secret_hash = ?1`
)

func scanTenant(row store.Scanner) (Tenant, error) {
	var t Tenant
	var guid string
	var created int64
	err := row.Scan(&t.ID, &guid, &t.Name, &created)
	if errors.Is(err, sql.ErrNoRows) {
		return Tenant{}, fail.New(api.NotFound, "the tenant does not exist")
	}
	if err != nil {
		return Tenant{}, err
	}
	t.Created = time.UnixMilli(created)
	t.GUID, err = uuid.Parse(guid)
	return t, err
}

func findPrincipal(ctx context.Context, tx *store.Tx, tenant int64, id uuid.UUID) (Principal, []byte, error) {
	p, hash, err := scanPrincipal(tx.QueryRow(ctx, selectPrincipal, tenant, id.String()))
	if errors.Is(err, sql.ErrNoRows) {
		err = fail.New(api.NotFound, "principal %s does not exist in this tenant", id)
	}
	return p, hash, err
}

// findPrincipalOf returns the principal of a tenant that has that GUID.
func findPrincipalOf(ctx context.Context, tx *store.Tx, tenant, id uuid.UUID) (Principal, error) {
	p, _, err := scanPrincipal(tx.QueryRow(ctx, selectPrincipalOf, tenant.String(), id.String()))
	if errors.Is(err, sql.ErrNoRows) {
		err = fail.New(api.NotFound, "principal %s does not exist in tenant %s", id, tenant)
	}
	return p, err
}

func findBySecret(ctx context.Context, tx *store.Tx, hash []byte) (Principal, error) {
	p, _, err := scanPrincipal(tx.QueryRow(ctx, selectPrincipalBySecret, hash))
	if errors.Is(err, sql.ErrNoRows) {
		err = fail.New(api.NotFound, "no principal has this secret")
	}
	return p, err
}

func scanPrincipal(row store.Scanner) (p Principal, hash []byte, err error) {
	var id, roles string
	if err := row.Scan(&p.Tenant, &id, &p.Name, &roles, &hash); err != nil {
		return Principal{}, nil, err
	}
	for _, r := range strings.Fields(roles) {
		p.Roles = append(p.Roles, Role(r))
	}
	p.ID, err = uuid.Parse(id)
	return p, hash, err
}

func joinRoles(roles []Role) string {
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = string(r)
	}
	return strings.Join(words, " ")
}

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

	principalColumns = `p.tenant, p.id, p.name, p.roles, p.secret_hash, p.kind, p.issuer, p.created, p.expires, p.used`
	insertPrincipal  = `INSERT INTO principal (tenant, id, name, roles, secret_hash, created, kind, issuer, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)`
	selectPrincipal  = `SELECT ` + principalColumns + ` FROM principal p WHERE p.tenant = ?1 AND p.id = ?2 AND p.revoked = 0`
	// selectPrincipalOf finds the principal of a tenant with a GUID.
	selectPrincipalOf = `SELECT ` + principalColumns + ` FROM tenant t JOIN principal p ON p.tenant = t.id
		WHERE t.guid = ?1 AND p.id = ?2 AND p.revoked = 0`
	selectPrincipals        = `SELECT ` + principalColumns + ` FROM principal p WHERE p.tenant = ?1 AND p.revoked = 0 ORDER BY p.created, p.id`
	selectAllPrincipals     = `SELECT ` + principalColumns + ` FROM principal p WHERE p.tenant = ?1 ORDER BY p.created, p.id`
	selectEveryPrincipal    = `SELECT ` + principalColumns + ` FROM principal p WHERE p.tenant = ?1 AND p.id = ?2`
	selectPrincipalBySecret = `SELECT ` + principalColumns + ` FROM principal p WHERE p.secret_hash = ?1 AND p.revoked = 0`

	updateSecret = `UPDATE principal SET secret_hash = ?3, kind = ?4, issuer = ?5, created = ?6, expires = ?7, roles = ?8, used = 0
		WHERE tenant = ?1 AND id = ?2 AND secret_hash = ?9 AND revoked = 0`
	// revokePrincipal keeps the row, because its name belongs to what the principal did.
	revokePrincipal = `UPDATE principal SET secret_hash = ?3, revoked = ?4 WHERE tenant = ?1 AND id = ?2 AND revoked = 0`
	updateUsed      = `UPDATE principal SET used = ?3 WHERE tenant = ?1 AND id = ?2 AND used < ?3`
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
	var id, roles, issuers string
	var created, expires, used int64
	if err := row.Scan(&p.Tenant, &id, &p.Name, &roles, &hash, &p.Kind, &issuers, &created, &expires, &used); err != nil {
		return Principal{}, nil, err
	}
	for _, r := range strings.Fields(roles) {
		if r == storedGlobal {
			r = string(api.Global)
		}
		p.Roles = append(p.Roles, api.Role(r))
	}
	p.Created, p.Expires, p.Used = time.UnixMilli(created), store.TimeOrZero(expires), store.TimeOrZero(used)
	for _, text := range strings.Fields(issuers) {
		issuer, err := uuid.Parse(text)
		if err != nil {
			return Principal{}, nil, err
		}
		p.Issuers = append(p.Issuers, issuer)
	}
	p.ID, err = uuid.Parse(id)
	return p, hash, err
}

// storedGlobal is the word for the role global in the database, which earlier versions read.
const storedGlobal = "admin"

func joinRoles(roles []api.Role) string {
	words := make([]string, len(roles))
	for i, r := range roles {
		if words[i] = string(r); r == api.Global {
			words[i] = storedGlobal
		}
	}
	return strings.Join(words, " ")
}

// joinIDs is the stored form of a list of ids.
func joinIDs(ids []uuid.UUID) string {
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = id.String()
	}
	return strings.Join(words, " ")
}

package access

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Tenant is an organisation.
type Tenant struct {
	ID   int64
	GUID uuid.UUID
	Name string
}

// service names the principals that every tenant has, with the names that the
// documentation gives them.
var service = []struct {
	id   uuid.UUID
	name string
}{
	{Exchange, "Office 365 Exchange Online"},
	{SharePoint, "Office 365 SharePoint Online"},
	{DataAtRestEncryption, "M365DataAtRestEncryption"},
}

// CreateTenant adds a tenant with the service's principals and one admin; fail
// AlreadyExists if the name is taken. AdminToken gives the admin's token once
// the transaction has committed.
func (d *Directory) CreateTenant(ctx context.Context, tx *store.Tx, name string) (Tenant, error) {
	if err := checkName("create tenant", name); err != nil {
		return Tenant{}, err
	}
	t := Tenant{ID: store.NewID(), GUID: uuid.New(), Name: name}
	n, err := tx.Exec(ctx, insertTenant, t.ID, t.GUID.String(), t.Name, d.now().UnixMilli())
	if err != nil {
		return Tenant{}, err
	}
	if n == 0 {
		return Tenant{}, fail.New(api.AlreadyExists, "create tenant: the name %q is taken", name)
	}
	for _, s := range service {
		p := Principal{ID: s.id, Tenant: t.ID, Name: s.name, Roles: []Role{Service}}
		if err := d.add(ctx, tx, p, clientSecretName(t.ID, s.id), ""); err != nil {
			return Tenant{}, err
		}
	}
	admin := Principal{ID: uuid.New(), Tenant: t.ID, Name: "admin", Roles: []Role{Admin}}
	return t, d.add(ctx, tx, admin, adminTokenName(t.ID), adminTokenPrefix)
}

func clientSecretName(tenant int64, id uuid.UUID) string {
	return fmt.Sprintf("client secret %d/%s", tenant, id)
}

func adminTokenName(tenant int64) string { return fmt.Sprintf("admin token %d", tenant) }

// Tenant returns a tenant by id; fail NotFound.
func (d *Directory) Tenant(ctx context.Context, tx *store.Tx, id int64) (Tenant, error) {
	return scanTenant(tx.QueryRow(ctx, selectTenant, id))
}

// TenantByGUID returns a tenant by GUID; fail NotFound.
func (d *Directory) TenantByGUID(ctx context.Context, tx *store.Tx, guid uuid.UUID) (Tenant, error) {
	return scanTenant(tx.QueryRow(ctx, selectTenantByGUID, guid.String()))
}

// Tenants returns all tenants in the order of their making.
func (d *Directory) Tenants(ctx context.Context, tx *store.Tx) ([]Tenant, error) {
	rows, err := tx.Query(ctx, selectTenants)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var tenants []Tenant
	for rows.Next() {
		t, err := scanTenant(rows)
		if err != nil {
			return nil, err
		}
		tenants = append(tenants, t)
	}
	return tenants, rows.Err()
}

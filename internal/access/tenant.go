package access

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Tenant is an organisation.
type Tenant struct {
	ID      int64
	GUID    uuid.UUID
	Name    string
	Created time.Time
}

// servicePrincipals are those that every tenant has, with their documented names.
var servicePrincipals = []struct {
	id   uuid.UUID
	name string
}{
	{Exchange, "Office 365 Exchange Online"},
	{SharePoint, "Office 365 SharePoint Online"},
	{DataAtRestEncryption, "M365DataAtRestEncryption"},
}

// CreateTenant adds a tenant with the service's principals and one admin, which also
// has the roles in more; fail AlreadyExists if the name is taken. AdminToken returns the
// admin's token once the transaction has committed.
//
// The tenant is complete after FinishTenant: until then it is in no list, and creating a
// tenant of that name returns it. So the creation of everything else that a tenant needs
// may be interrupted at any point, and is then repeated.
func (d *Directory) CreateTenant(ctx context.Context, tx *store.Tx, name string, more ...api.Role) (Tenant, error) {
	if err := checkName("create tenant", name); err != nil {
		return Tenant{}, err
	}
	if _, err := uuid.Parse(name); err == nil {
		return Tenant{}, fail.New(api.InvalidArgument, "create tenant: the name must not have the form of a GUID, because GUIDs also identify tenants")
	}
	t := Tenant{ID: store.NewID(), GUID: uuid.New(), Name: name, Created: time.UnixMilli(d.now().UnixMilli())}
	n, err := tx.Exec(ctx, insertTenant, t.ID, t.GUID.String(), t.Name, t.Created.UnixMilli())
	if err != nil {
		return Tenant{}, err
	}
	if n == 0 {
		unfinished, err := scanTenant(tx.QueryRow(ctx, unmadeTenant, name))
		if fail.Is(err, api.NotFound) {
			err = fail.New(api.AlreadyExists, "create tenant: the name %q is taken", name)
		}
		return unfinished, err
	}
	for _, s := range servicePrincipals {
		p := Principal{ID: s.id, Tenant: t.ID, Name: s.name, Roles: []api.Role{Service}}
		if err := d.add(ctx, tx, p, clientSecretName(t.ID, s.id), ""); err != nil {
			return Tenant{}, err
		}
	}
	admin := Principal{ID: uuid.New(), Tenant: t.ID, Name: "admin", Roles: append([]api.Role{api.Global}, more...)}
	return t, d.add(ctx, tx, admin, adminTokenName(t.ID), adminTokenPrefix)
}

// FinishTenant records that everything that a tenant needs has been created; fail
// AlreadyExists if that was recorded before.
func (d *Directory) FinishTenant(ctx context.Context, tx *store.Tx, tenant int64) error {
	n, err := tx.Exec(ctx, updateTenantMade, tenant)
	if err == nil && n == 0 {
		err = fail.New(api.AlreadyExists, "create tenant: another request made it meanwhile")
	}
	return err
}

func clientSecretName(tenant int64, id uuid.UUID) string {
	return fmt.Sprintf("client secret %d/%s", tenant, id)
}

func adminTokenName(tenant int64) string { return fmt.Sprintf("admin token %d", tenant) }

// Tenant returns a tenant by id; fail NotFound.
func (d *Directory) Tenant(ctx context.Context, tx *store.Tx, id int64) (Tenant, error) {
	return scanTenant(tx.QueryRow(ctx, tenantByID, id))
}

// findByGUID returns a tenant by GUID; fail NotFound.
func (d *Directory) findByGUID(ctx context.Context, tx *store.Tx, guid uuid.UUID) (Tenant, error) {
	return scanTenant(tx.QueryRow(ctx, tenantByGUID, guid.String()))
}

// FindTenant returns a tenant by name or GUID; fail NotFound.
func (d *Directory) FindTenant(ctx context.Context, tx *store.Tx, identity string) (Tenant, error) {
	t, err := scanTenant(tx.QueryRow(ctx, madeTenant, identity, strings.ToLower(identity)))
	if fail.Is(err, api.NotFound) {
		err = fail.New(api.NotFound, "tenant %q does not exist", identity).WithHint("keyroll tenant list shows the tenants")
	}
	return t, err
}

// FirstTenant returns the tenant that was created at the first start; fail NotFound.
func (d *Directory) FirstTenant(ctx context.Context, tx *store.Tx) (Tenant, error) {
	return scanTenant(tx.QueryRow(ctx, firstTenant))
}

// Tenants returns the first limit tenants with an id above after, the oldest first.
func (d *Directory) Tenants(ctx context.Context, tx *store.Tx, after int64, limit int) ([]Tenant, error) {
	return store.Collect(ctx, tx, scanTenant, madeTenants, after, limit)
}

// CheckTenant refuses a principal of another tenant than the one of that name or GUID,
// with the same message whether that tenant exists or not.
func (d *Directory) CheckTenant(ctx context.Context, p Principal, identity string) error {
	return d.db.View(ctx, func(tx *store.Tx) error {
		own, err := d.Tenant(ctx, tx, p.Tenant)
		if err == nil && own.Name != identity && !strings.EqualFold(own.GUID.String(), identity) {
			err = fail.New(api.Forbidden, "the token belongs to another tenant than the request names").
				WithHint("use a token of that tenant, or name the token's own")
		}
		return err
	})
}

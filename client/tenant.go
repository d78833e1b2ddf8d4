package client

import (
	"context"

	"keyroll/api"
)

// CreateTenant creates a tenant; only its response has the token of the tenant's admin.
func (c *Client) CreateTenant(ctx context.Context, in api.CreateTenantInput) (api.CreatedTenant, error) {
	return call(ctx, c, api.CreateTenant, in)
}

// ListTenants lists tenants.
func (c *Client) ListTenants(ctx context.Context, in api.ListInput) (api.List[api.Tenant], error) {
	return call(ctx, c, api.ListTenants, in)
}

// SetTenant sets which vaults outside the server's keyroll a tenant may use.
func (c *Client) SetTenant(ctx context.Context, in api.SetTenantInput) (api.Tenant, error) {
	return call(ctx, c, api.SetTenant, in)
}

// ShowTenant shows a tenant.
func (c *Client) ShowTenant(ctx context.Context, in api.TenantInput) (api.Tenant, error) {
	return call(ctx, c, api.ShowTenant, in)
}

// CreateGeo makes a geo for the sites of some hosts.
func (c *Client) CreateGeo(ctx context.Context, in api.CreateGeoInput) (api.Geo, error) {
	return call(ctx, c, api.CreateGeo, in)
}

// ListGeos lists geos, the default one first: all of them if in selects no page.
func (c *Client) ListGeos(ctx context.Context, in api.ListInput) (api.List[api.Geo], error) {
	return wholeList(ctx, c, api.ListGeos, in)
}

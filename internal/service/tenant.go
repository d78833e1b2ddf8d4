package service

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fault"
	"keyroll/internal/operation"
	"keyroll/internal/store"
)

// CreateTenant makes a tenant with its principals, its service-managed policy and its
// directory. These are several transactions: a tenant that was interrupted between
// them is invisible, and is completed when a tenant of its name is created again.
func (s *Service) CreateTenant(ctx context.Context, in api.CreateTenantInput) (api.CreatedTenant, error) {
	return do(ctx, s, api.CreateTenant.Meta, in.Body.Name, func(ctx context.Context, c *call) (out api.CreatedTenant, err error) {
		var t access.Tenant
		err = s.db.InTx(ctx, func(tx *store.Tx) (err error) {
			var more []api.Role
			if in.Body.Operator {
				more = append(more, api.Operator)
			}
			t, err = s.access.CreateTenant(ctx, tx, in.Body.Name, more...)
			return err
		})
		if err != nil {
			return out, err
		}
		fault.Point("tenant.begun")
		if err := s.policies.Bootstrap(ctx, t.ID, t.GUID); err != nil {
			return out, err
		}
		fault.Point("tenant.has-policy")
		if err := s.containers.Bootstrap(ctx, t.ID); err != nil {
			return out, err
		}
		token, err := s.access.AdminToken(ctx, t.ID)
		if err != nil {
			return out, err
		}
		err = s.db.InTx(ctx, func(tx *store.Tx) error {
			if err := s.access.FinishTenant(ctx, tx, t.ID); err != nil {
				return err
			}
			if err := c.RecordDone(ctx, tx, "tenant "+t.GUID.String()); err != nil {
				return err
			}
			fault.Point("tenant.before-commit")
			return nil
		})
		if err == nil {
			fault.Point("tenant.after-commit")
		}
		return api.CreatedTenant{Tenant: tenantOf(t), AdminToken: token}, err
	})
}

// ListTenants lists tenants in the order of their creation.
func (s *Service) ListTenants(ctx context.Context, in api.ListInput) (api.List[api.Tenant], error) {
	return do(ctx, s, api.ListTenants.Meta, "", func(ctx context.Context, c *call) (list api.List[api.Tenant], err error) {
		return operation.ListPage(ctx, c.Call, in.PageInput, func(tx *store.Tx, after int64, limit int) ([]operation.Row[api.Tenant], error) {
			all, err := s.access.Tenants(ctx, tx, after, limit)
			return operation.RowsOf(all, func(t access.Tenant) operation.Row[api.Tenant] {
				return operation.Row[api.Tenant]{ID: t.ID, Item: tenantOf(t)}
			}), err
		})
	})
}

// ShowTenant shows a tenant by name or GUID.
func (s *Service) ShowTenant(ctx context.Context, in api.TenantInput) (out api.Tenant, err error) {
	return do(ctx, s, api.ShowTenant.Meta, in.Tenant, func(ctx context.Context, c *call) (api.Tenant, error) {
		return out, c.Read(ctx, func(tx *store.Tx) error {
			t, err := s.access.FindTenant(ctx, tx, in.Tenant)
			if err != nil {
				return err
			}
			out, err = s.withOutside(ctx, tx, t)
			return err
		})
	})
}

// SetTenant sets which vaults outside this keyroll a tenant may use.
func (s *Service) SetTenant(ctx context.Context, in api.SetTenantInput) (out api.Tenant, err error) {
	return do(ctx, s, api.SetTenant.Meta, in.Tenant, func(ctx context.Context, c *call) (api.Tenant, error) {
		return out, c.Change(ctx, func(tx *store.Tx) (string, error) {
			t, err := s.access.FindTenant(ctx, tx, in.Tenant)
			if err != nil {
				return "", err
			}
			if err := s.access.SetExternal(ctx, tx, t.ID, access.ExternalVaults(in.Body.Add), access.ExternalVaults(in.Body.Remove)); err != nil {
				return "", err
			}
			if out, err = s.withOutside(ctx, tx, t); err != nil {
				return "", err
			}
			return fmt.Sprintf("tenant %s may use %d directories and %d vaults", t.GUID, len(out.Directories), len(out.Vaults)), nil
		})
	})
}

func (s *Service) withOutside(ctx context.Context, tx *store.Tx, t access.Tenant) (api.Tenant, error) {
	o, err := s.access.ExternalVaults(ctx, tx, t.ID)
	out := tenantOf(t)
	out.Outside = api.Outside(o)
	return out, err
}

func tenantOf(t access.Tenant) api.Tenant {
	return api.Tenant{ID: t.GUID.String(), Name: t.Name, Created: t.Created.UTC()}
}

package principals

import (
	"context"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/audit"
	"keyroll/internal/fail"
	"keyroll/internal/operation"
	"keyroll/internal/store"
)

// codeLifetime is how long an approver may take to enrol.
const codeLifetime = 7 * 24 * time.Hour

// inTenant runs a change in the caller's tenant, or, for an operator, in another one, whose
// log then has an entry too.
func (p *Principals) inTenant(ctx context.Context, c *operation.Call, in api.ApproverTenant, f func(tx *store.Tx, tenant int64) (detail string, err error)) error {
	tenant, err := p.tenantNamed(ctx, c, in)
	if err != nil {
		return err
	}
	return c.Change(ctx, func(tx *store.Tx) (string, error) {
		detail, err := f(tx, tenant)
		if err == nil && tenant != c.Tenant {
			err = p.frame.Audit.Append(ctx, tx, audit.Entry{ID: store.NewID(), Tenant: tenant, Outcome: audit.Done, Target: c.Target, Detail: detail + ", by the operator"})
		}
		return detail, err
	})
}

// tenantNamed returns the tenant that an operator names, and otherwise the caller's own.
func (p *Principals) tenantNamed(ctx context.Context, c *operation.Call, in api.ApproverTenant) (int64, error) {
	if in.Tenant == "" {
		return c.Tenant, nil
	}
	var t access.Tenant
	err := c.Principal.Check(api.Operator)
	if err == nil {
		err = p.frame.DB.View(ctx, func(tx *store.Tx) (err error) {
			t, err = p.access.FindTenant(ctx, tx, in.Tenant)
			return err
		})
	}
	if err == nil {
		_, err = p.frame.Texts(ctx, t.ID) // unwrapped before the transaction that seals an entry for it
	}
	return t.ID, err
}

// AddApprover registers an approver, who enrols with a one-time code.
func (p *Principals) AddApprover(ctx context.Context, in api.AddApproverInput) (out api.InvitedApprover, err error) {
	return operation.Do(ctx, p.frame, api.AddApprover.Meta, in.Body.Name, func(ctx context.Context, c *operation.Call) (api.InvitedApprover, error) {
		err := p.inTenant(ctx, c, in.ApproverTenant, func(tx *store.Tx, tenant int64) (string, error) {
			who := access.Principal{Tenant: tenant, Name: in.Body.Name, Roles: []api.Role{api.Enrolling}, Kind: access.ByCode, Created: p.now(), Expires: p.now().Add(codeLifetime)}
			who, out.Code, err = p.access.AddToken(ctx, tx, who, c.Principal.ID)
			out.ApproverInfo = approverOf(who, c.Principal.Name)
			return tokenDetail(who), err
		})
		if err == nil {
			p.acts.Logger.WarnContext(ctx, "an approver was invited", "approver", out.ID, "principal", c.Principal.ID, "tenant", c.Tenant)
		}
		return out, err
	})
}

// EnrolApprover exchanges the caller's one-time code for a token that no other person has seen.
func (p *Principals) EnrolApprover(ctx context.Context, _ api.None) (out api.CreatedToken, err error) {
	return operation.Do(ctx, p.frame, api.EnrolApprover.Meta, "", func(ctx context.Context, c *operation.Call) (api.CreatedToken, error) {
		return out, c.Change(ctx, func(tx *store.Tx) (string, error) {
			who, token, err := p.access.Enrol(ctx, tx, c.Principal)
			out = api.CreatedToken{Token: tokenOf(who, ""), Secret: token}
			return tokenDetail(who), err
		})
	})
}

// ListApprovers lists the approvers of a tenant.
func (p *Principals) ListApprovers(ctx context.Context, in api.ApproverTenant) (api.List[api.ApproverInfo], error) {
	return operation.Do(ctx, p.frame, api.ListApprovers.Meta, in.Tenant, func(ctx context.Context, c *operation.Call) (api.List[api.ApproverInfo], error) {
		list := api.List[api.ApproverInfo]{Items: []api.ApproverInfo{}}
		tenant, err := p.tenantNamed(ctx, c, in)
		if err != nil {
			return list, err
		}
		return list, c.Read(ctx, func(tx *store.Tx) error {
			list.Items = list.Items[:0]
			all, err := p.access.Principals(ctx, tx, tenant)
			for _, who := range all {
				if who.HasAny(api.Approver, api.Enrolling) {
					list.Items = append(list.Items, approverOf(who, issuerOf(all, who)))
				}
			}
			return err
		})
	})
}

// RemoveApprover removes an approver. So that no admin removes the one who would refuse, another
// approver does; the operator removes the last one, and an admin one who has not enrolled.
func (p *Principals) RemoveApprover(ctx context.Context, in api.RemoveApproverInput) (none api.None, err error) {
	return operation.Do(ctx, p.frame, api.RemoveApprover.Meta, in.Approver, func(ctx context.Context, c *operation.Call) (api.None, error) {
		return none, p.inTenant(ctx, c, in.ApproverTenant, func(tx *store.Tx, tenant int64) (string, error) {
			if err := tx.Lock(ctx, tenant, true); err != nil { // of two approvers who remove each other, one stays
				return "", err
			}
			who, err := p.access.FindPrincipal(ctx, tx, tenant, in.Approver)
			if err == nil && !who.HasAny(api.Approver, api.Enrolling) {
				err = fail.New(api.NotFound, "%q is no approver", who.Name)
			}
			if err == nil && !who.HasAny(api.Enrolling) {
				err = p.checkRemovable(ctx, c, tx, who)
			}
			if err == nil {
				err = p.access.Revoke(ctx, tx, who)
			}
			return tokenDetail(who), err
		})
	})
}

// checkRemovable refuses the removal of an enrolled approver by anybody but another one, or,
// of the last one, the operator.
func (p *Principals) checkRemovable(ctx context.Context, c *operation.Call, tx *store.Tx, who access.Principal) error {
	all, err := p.access.Principals(ctx, tx, who.Tenant)
	if err != nil {
		return err
	}
	others := 0
	for _, other := range all {
		if other.ID != who.ID && other.HasAny(api.Approver) {
			others++
		}
	}
	switch {
	case others > 0 && c.Principal.HasAny(api.Approver) && c.Principal.ID != who.ID:
		return nil
	case others == 0 && c.Principal.HasAny(api.Operator):
		return nil
	case others > 0:
		return fail.New(api.Forbidden, "approver %q can be removed by another approver only", who.Name).WithHint("one of the %d others removes it: keyroll approval approver remove --token-file FILE", others)
	}
	return fail.New(api.Forbidden, "approver %q is the last one of the tenant and can be removed by the operator only", who.Name)
}

func approverOf(who access.Principal, issuer string) api.ApproverInfo {
	state := "enrolled"
	switch who.Kind {
	case access.ByCode:
		state = "invited"
	case access.ByService:
		state = "earlier"
	}
	return api.ApproverInfo{ID: who.ID.String(), Name: who.Name, State: state, Issuer: issuer, Since: who.Created.UTC(), Expires: operation.TimeOrNil(who.Expires), LastUsed: operation.TimeOrNil(who.Used)}
}

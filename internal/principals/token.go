package principals

import (
	"context"
	"slices"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
	"keyroll/internal/operation"
	"keyroll/internal/store"
)

// WhoAmI shows the caller.
func (p *Principals) WhoAmI(ctx context.Context, _ api.None) (out api.Identity, err error) {
	return operation.Do(ctx, p.frame, api.WhoAmI.Meta, "", func(ctx context.Context, c *operation.Call) (api.Identity, error) {
		return out, c.Read(ctx, func(tx *store.Tx) error {
			t, err := p.access.Tenant(ctx, tx, c.Tenant)
			who := c.Principal
			out = api.Identity{ID: who.ID.String(), Name: who.Name, Tenant: t.Name, TenantID: t.GUID.String(), Roles: who.Roles, Expires: operation.TimeOrNil(who.Expires)}
			return err
		})
	})
}

// CreateToken creates a principal with a token of its own.
func (p *Principals) CreateToken(ctx context.Context, in api.CreateTokenInput) (out api.CreatedToken, err error) {
	return operation.Do(ctx, p.frame, api.CreateToken.Meta, in.Body.Name, func(ctx context.Context, c *operation.Call) (api.CreatedToken, error) {
		if err := checkGrantable(c.Principal, in.Body.Roles); err != nil {
			return out, err
		}
		if err := p.checkExpiry(in.Body.Expires); err != nil {
			return out, err
		}
		return out, c.Change(ctx, func(tx *store.Tx) (string, error) {
			who := access.Principal{Tenant: c.Tenant, Name: in.Body.Name, Roles: in.Body.Roles, Kind: access.ByToken, Created: p.now(), Expires: in.Body.Expires}
			who, out.Secret, err = p.access.AddToken(ctx, tx, who, c.Principal.ID)
			out.Token = tokenOf(who, c.Principal.Name)
			return tokenDetail(who), err
		})
	})
}

// checkGrantable refuses roles that the caller may not grant.
func checkGrantable(by access.Principal, roles []api.Role) error {
	var may []api.Role
	for _, r := range by.Roles {
		may = append(may, r.Grantable()...)
	}
	if len(roles) == 0 {
		return fail.New(api.InvalidArgument, "a token needs at least one role").WithHint("roles that you may grant: %s", api.JoinRoles(may, ", "))
	}
	for i, r := range roles {
		switch {
		case !slices.Contains(api.Roles, r):
			return fail.New(api.InvalidArgument, "%.40q is no role", r).WithHint("roles that you may grant: %s", api.JoinRoles(may, ", "))
		case slices.Contains(roles[:i], r):
			return fail.New(api.InvalidArgument, "the role %s is given twice", r)
		case r == api.Approver:
			return fail.New(api.Forbidden, "an approver has a token that no other person has seen, and cannot be given one").WithHint("register the person: keyroll approval approver add")
		case !slices.Contains(may, r):
			return fail.New(api.Forbidden, "principal %q may not grant the role %s", by.Name, r).WithHint("roles that you may grant: %s", api.JoinRoles(may, ", "))
		}
	}
	return nil
}

func (p *Principals) checkExpiry(expires time.Time) error {
	if !expires.IsZero() && !expires.After(p.now()) {
		return fail.New(api.InvalidArgument, "the token would expire in the past, at %s", expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// ListTokens lists the tokens of the tenant, without one-time codes and approvers.
func (p *Principals) ListTokens(ctx context.Context, _ api.None) (api.List[api.Token], error) {
	return operation.Do(ctx, p.frame, api.ListTokens.Meta, "", func(ctx context.Context, c *operation.Call) (api.List[api.Token], error) {
		list := api.List[api.Token]{Items: []api.Token{}}
		return list, c.Read(ctx, func(tx *store.Tx) error {
			list.Items = list.Items[:0]
			all, err := p.access.Principals(ctx, tx, c.Tenant)
			for _, who := range all {
				if who.Kind == access.ByToken {
					list.Items = append(list.Items, tokenOf(who, issuerOf(all, who)))
				}
			}
			return err
		})
	})
}

// RotateToken replaces the token of a principal.
func (p *Principals) RotateToken(ctx context.Context, in api.RotateTokenInput) (out api.CreatedToken, err error) {
	return operation.Do(ctx, p.frame, api.RotateToken.Meta, in.Token, func(ctx context.Context, c *operation.Call) (api.CreatedToken, error) {
		if err := p.checkExpiry(in.Body.Expires); err != nil {
			return out, err
		}
		return out, c.Change(ctx, func(tx *store.Tx) (string, error) {
			who, err := p.findToken(ctx, c, tx, in.Token)
			if err != nil {
				return "", err
			}
			if out.Secret, err = p.access.Renew(ctx, tx, who, c.Principal.ID, in.Body.Expires); err != nil {
				return "", err
			}
			who.Expires, who.Used = in.Body.Expires, time.Time{}
			out.Token = tokenOf(who, "")
			return tokenDetail(who), nil
		})
	})
}

// RevokeToken revokes a token.
func (p *Principals) RevokeToken(ctx context.Context, in api.TokenInput) (api.None, error) {
	return operation.Do(ctx, p.frame, api.RevokeToken.Meta, in.Token, func(ctx context.Context, c *operation.Call) (none api.None, err error) {
		return none, c.Change(ctx, func(tx *store.Tx) (string, error) {
			who, err := p.findToken(ctx, c, tx, in.Token)
			if err == nil && who.Kind != access.ByToken {
				err = fail.New(api.InvalidArgument, "%q is an approver", who.Name).WithHint("remove it: keyroll approval approver remove")
			}
			if err == nil {
				err = p.access.Revoke(ctx, tx, who)
			}
			return tokenDetail(who), err
		})
	})
}

// findToken returns the principal of a token that the caller may replace or revoke: its own,
// or one with no role that it may not grant.
func (p *Principals) findToken(ctx context.Context, c *operation.Call, tx *store.Tx, identity string) (access.Principal, error) {
	who, err := p.access.FindPrincipal(ctx, tx, c.Tenant, identity)
	if err != nil {
		return who, err
	}
	if who.Kind == access.ByApplication {
		return who, fail.New(api.InvalidArgument, "%q is an application, and has secrets instead of a token", who.Name).WithHint("keyroll application secret adds and removes them")
	}
	if who.Kind == access.ByService {
		return who, fail.New(api.InvalidArgument, "%q is a principal that keyroll made with the tenant, and has no token of this kind", who.Name)
	}
	if who.ID == c.Principal.ID {
		return who, nil
	}
	if who.Kind != access.ByToken {
		return who, fail.New(api.Forbidden, "the token of %q is its own: only that person may replace it", who.Name)
	}
	return who, checkGrantable(c.Principal, who.Roles)
}

func tokenOf(who access.Principal, issuer string) api.Token {
	return api.Token{ID: who.ID.String(), Name: who.Name, Roles: who.Roles, Issuer: issuer, Created: who.Created.UTC(), Expires: operation.TimeOrNil(who.Expires), LastUsed: operation.TimeOrNil(who.Used)}
}

// tokenDetail is what the audit log says of a token in the clear: no name.
func tokenDetail(who access.Principal) string {
	return "principal " + who.ID.String() + " with the roles " + api.JoinRoles(who.Roles, ", ")
}

// issuerOf returns the name of who last issued the secret of a principal, or the GUID of one
// that is not in the list.
func issuerOf(all []access.Principal, who access.Principal) string {
	if len(who.Issuers) == 0 {
		return ""
	}
	id := who.Issuers[0]
	if i := slices.IndexFunc(all, func(who access.Principal) bool { return who.ID == id }); i >= 0 {
		return all[i].Name
	}
	return id.String()
}

package service

import (
	"context"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/operation"
	"keyroll/internal/policy"
	"keyroll/internal/profiles"
	"keyroll/internal/store"
)

// Names of the policies of a geo, followed by a hyphen and the name of the geo except
// for the default geo.
const (
	sitePolicyName    = "Sites"
	managedPolicyName = "Service-managed"
)

// policyName names a policy of a geo.
func policyName(of string, g container.Geo) string {
	if g.ID == 0 {
		return of
	}
	return of + "-" + g.Name
}

// checkPolicyName refuses a name that is reserved for the policies of geos.
func checkPolicyName(name string) error {
	for _, reserved := range []string{sitePolicyName, managedPolicyName} {
		if first, rest := name[:min(len(name), len(reserved))], name[min(len(name), len(reserved)):]; strings.EqualFold(first, reserved) && (rest == "" || rest[0] == '-') {
			return fail.New(api.InvalidArgument, "policy name %q is reserved for the policies of geos", name).
				WithHint("choose another name; a site policy gets its name when it is registered (Register-SPODataEncryptionPolicy)")
		}
	}
	return nil
}

// CreateGeo makes a geo, and the service-managed policy that its sites are under until
// its site policy is registered.
func (s *Service) CreateGeo(ctx context.Context, in api.CreateGeoInput) (out api.Geo, err error) {
	return do(ctx, s, api.CreateGeo.Meta, in.Body.Name, func(ctx context.Context, c *call) (api.Geo, error) {
		g, err := s.containers.NewGeo(in.Body.Name, in.Body.Hosts)
		if err != nil {
			return out, err
		}
		// The transaction checks this again; checking first avoids making a policy in vain.
		if err := s.db.View(ctx, func(tx *store.Tx) error { return s.containers.CheckGeo(ctx, tx, c.Tenant, g) }); err != nil {
			return out, err
		}
		guid, err := s.tenantGUID(ctx, c.Tenant)
		if err != nil {
			return out, err
		}
		managed, err := s.policies.PrepareCreate(ctx, c.Tenant, guid, policy.Definition{Kind: api.ServiceManagedPolicy, Name: policyName(managedPolicyName, g),
			Description: "Root keys held only by the service. The sites of the geo are under it until its site policy is registered.", Geo: g.ID})
		if err != nil {
			return out, err
		}
		err = c.Commit(ctx, managed, func(tx *store.Tx) (string, error) {
			if _, err := managed.Commit(ctx, tx); err != nil {
				return "", err
			}
			if err := s.containers.AddGeo(ctx, tx, c.Tenant, g); err != nil {
				return "", err
			}
			out = geoOf(g, 0, policy.Policy{})
			fault.Point("geo.before-commit")
			return "geo " + g.Name, nil
		})
		if err == nil {
			fault.Point("geo.after-commit")
		}
		return out, err
	})
}

// defaultGeoPosition is the position of the default geo in the list; that of any other
// geo is its id, which is larger.
const defaultGeoPosition = 1

// ListGeos lists the geos of the tenant, the default one first.
func (s *Service) ListGeos(ctx context.Context, in api.ListInput) (list api.List[api.Geo], err error) {
	return do(ctx, s, api.ListGeos.Meta, "", func(ctx context.Context, c *call) (api.List[api.Geo], error) {
		after, limit, err := operation.ParsePage(in.PageInput)
		if err != nil {
			return list, err
		}
		return list, c.Read(ctx, func(tx *store.Tx) error {
			rows, damaged, err := c.geosAfter(ctx, tx, after)
			if err != nil {
				return err
			}
			list, err = operation.PageOf(rows, limit)
			for _, damage := range slices.Concat(damaged[:len(list.Items)]...) {
				list.Damaged = append(list.Damaged, damage.Error())
			}
			return err
		})
	})
}

// geosAfter returns the geos after a position, and the damage to each: with three queries.
func (c *call) geosAfter(ctx context.Context, tx *store.Tx, after int64) (rows []operation.Row[api.Geo], damaged [][]error, err error) {
	all, err := c.containers.Geos(ctx, tx, c.Tenant)
	if err != nil {
		return nil, nil, err
	}
	sites, err := c.containers.SitesByGeo(ctx, tx, c.Tenant)
	if err != nil {
		return nil, nil, err
	}
	names, err := c.policies.NamesOf(ctx, tx, c.Tenant, nil)
	if err != nil {
		return nil, nil, err
	}
	for _, g := range all {
		position := max(g.ID, defaultGeoPosition)
		if position <= after {
			continue
		}
		pol, _, err := names.OfGeo(string(container.Site), g.ID)
		if err != nil {
			return nil, nil, err
		}
		rows = append(rows, operation.Row[api.Geo]{ID: position, Item: geoOf(g, sites[g.ID], pol)})
		damaged = append(damaged, g.Damaged)
	}
	return rows, damaged, nil
}

// geoOf converts a geo; the zero policy means that it has no site policy.
func geoOf(g container.Geo, sites int64, pol policy.Policy) api.Geo {
	return api.Geo{Name: g.Name, Default: g.ID == 0, Hosts: append([]string{}, g.Hosts...), Sites: sites, Policy: pol.Name, Created: g.Created.UTC()}
}

// sitePolicy returns the site policy of a geo, and false if it has none.
func (c *call) sitePolicy(ctx context.Context, tx *store.Tx, g container.Geo) (policy.Policy, bool, error) {
	id, err := c.policies.Default(ctx, tx, c.Tenant, string(container.Site), g.ID)
	if err != nil {
		return policy.Policy{}, false, err
	}
	pol, err := c.policies.ByID(ctx, tx, c.Tenant, id)
	return pol, err == nil && profiles.Of(pol.Kind).Keys > 0, err
}

// findPolicy returns the policy that in names, which must be of the kind that in states.
func (c *call) findPolicy(ctx context.Context, tx *store.Tx, in api.PolicyInput) (policy.Policy, error) {
	pol, err := c.policyNamed(ctx, tx, in.Policy)
	if err == nil && in.Kind != "" && in.Kind != pol.Kind {
		err = fail.New(api.NotFound, "no %s policy is named %q: that is a %s policy", in.Kind, in.Policy, pol.Kind).
			WithHint("%s shows the %s policies", profiles.Of(in.Kind).ListedBy, in.Kind)
	}
	return pol, err
}

// policyNamed returns the policy that identity names; the URL of an admin site
// names the site policy of its geo.
func (c *call) policyNamed(ctx context.Context, tx *store.Tx, identity string) (policy.Policy, error) {
	if !strings.Contains(identity, "://") {
		return c.policies.Find(ctx, tx, c.Tenant, identity)
	}
	g, err := c.containers.FindGeo(ctx, tx, c.Tenant, identity)
	if err != nil {
		return policy.Policy{}, err
	}
	pol, found, err := c.sitePolicy(ctx, tx, g)
	if err == nil && !found {
		err = noSitePolicy(g)
	}
	return pol, err
}

func noSitePolicy(g container.Geo) error {
	return fail.New(api.NotFound, "geo %q has no site policy", g.Name).WithHint("register one with Register-SPODataEncryptionPolicy in keyroll shell")
}

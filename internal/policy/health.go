package policy

import (
	"context"
	"log/slog"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keyhealth"
	"keyroll/internal/profiles"
	"keyroll/internal/rootkey"
)

// rootOf names a customer key version of a revision as its policy uses it.
func (r revisionRow) rootOf(tenant int64, kv envelope.KeyVersion) keyhealth.Root {
	return keyhealth.Root{Tenant: tenant, Policy: r.Policy, Principal: profiles.Of(r.Kind).Identity, Key: kv}
}

// warn logs a change of health that has been committed.
func (p *Policies) warn(ctx context.Context, change string) {
	if change != "" {
		p.logger.LogAttrs(ctx, slog.LevelWarn, "the health of a customer key changed", slog.String("change", change))
	}
}

// wrapperOf returns what wraps by a root.
func (p *Policies) wrapperOf(root keyhealth.Root) rootkey.Wrapper {
	return rootkey.Wrapper{Keys: p.roots, Tenant: root.Tenant, By: root.Principal, Key: root.Key}
}

// classifyFailure is keyhealth.ClassifyFailure for the customer keys of a revision.
func (p *Policies) classifyFailure(ctx context.Context, tenant int64, r revisionRow, failed error) (rootkey.Class, error) {
	return keyhealth.ClassifyFailure(ctx, p.db, r.namedRoots(tenant), failed)
}

// namedRoots are the customer keys of a revision.
func (r revisionRow) namedRoots(tenant int64) (roots []keyhealth.NamedRoot) {
	for _, root := range customerRoots(profiles.Of(r.Kind), r) {
		roots = append(roots, keyhealth.NamedRoot{Root: r.rootOf(tenant, root.kv), Name: root.name})
	}
	return roots
}

// Revoked reports whether a policy key is revoked: no customer key serves, and at least one
// has refused. With ask the vaults are asked, so that a revocation counts from the moment at
// which they refuse, not from when keyroll next needs them. A damaged policy key is revoked.
func (p *Policies) Revoked(ctx context.Context, tenant, policyKey int64, ask bool) (bool, error) {
	r, err := p.authentic(ctx, tenant, policyKey)
	switch {
	case fail.Is(err, api.NotFound): // nothing is under it any more
		return false, nil
	case fail.Is(err, api.Damaged):
		return true, nil
	case err != nil:
		return false, err
	}
	if ask {
		profile := profiles.Of(r.Kind)
		for _, root := range customerRoots(profile, r) {
			bundle, _ := p.unwrapWith(ctx, tenant, profile, r, root) // its health is recorded
			clear(bundle)
		}
	}
	return keyhealth.Revoked(ctx, p.db, r.namedRoots(tenant))
}

// healthOf returns the recorded health of a customer key version of a policy, nil if kv
// names no key.
func (pol Policy) healthOf(all keyhealth.Healths, kv envelope.KeyVersion) *api.KeyHealth {
	if kv.Key == "" {
		return nil
	}
	return all.Of(keyhealth.Root{Tenant: pol.Tenant, Policy: pol.ID, Principal: profiles.Of(pol.Kind).Identity, Key: kv}).API()
}

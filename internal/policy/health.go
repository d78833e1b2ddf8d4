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
	"keyroll/internal/store"
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
	var roots []keyhealth.NamedRoot
	for _, root := range customerRoots(profiles.Of(r.Kind), r) {
		roots = append(roots, keyhealth.NamedRoot{Root: r.rootOf(tenant, root.kv), Name: root.name})
	}
	return keyhealth.ClassifyFailure(ctx, p.db, roots, failed)
}

// Revoked is Refused after the vaults were asked: a revocation counts from the moment at which
// they refuse, not from when keyroll next needs them. A policy key that is damaged counts as
// revoked.
func (p *Policies) Revoked(ctx context.Context, tenant, policyKey int64) (bool, error) {
	r, err := p.authentic(ctx, tenant, policyKey)
	switch {
	case fail.Is(err, api.NotFound): // nothing is under it any more
		return false, nil
	case fail.Is(err, api.Damaged):
		return true, nil
	case err != nil:
		return false, err
	}
	profile := profiles.Of(r.Kind)
	for _, root := range customerRoots(profile, r) {
		bundle, err := p.unwrapWith(ctx, tenant, profile, r, root)
		clear(bundle)
		if err == nil {
			return false, nil
		}
	}
	return p.Refused(ctx, tenant, policyKey)
}

// Refused reports whether a policy key is revoked as far as its vaults have last said: no
// customer key serves, and at least one has refused. It calls no vault.
func (p *Policies) Refused(ctx context.Context, tenant, policyKey int64) (refused bool, err error) {
	err = p.db.View(ctx, func(tx *store.Tx) error {
		refused = false
		r, err := keptRevision(ctx, tx, tenant, policyKey)
		if fail.Is(err, api.NotFound) { // nothing is under it any more
			return nil
		}
		if err != nil {
			return err
		}
		for _, root := range customerRoots(profiles.Of(r.Kind), r) {
			h, err := keyhealth.Of(ctx, tx, r.rootOf(tenant, root.kv))
			if err != nil {
				return err
			}
			if h.State == api.Serves {
				refused = false
				return nil
			}
			refused = refused || h.State == api.Refused
		}
		return nil
	})
	return refused, err
}

// healthOf returns the recorded health of a customer key version of a policy, nil if kv
// names no key.
func (pol Policy) healthOf(all keyhealth.Healths, kv envelope.KeyVersion) *api.KeyHealth {
	if kv.Key == "" {
		return nil
	}
	return all.Of(keyhealth.Root{Tenant: pol.Tenant, Policy: pol.ID, Principal: profiles.Of(pol.Kind).Identity, Key: kv}).API()
}

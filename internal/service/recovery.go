package service

import (
	"context"

	"keyroll/api"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// RecoverPolicy puts a site policy whose two customer keys are lost into
// recovery mode.
func (s *Service) RecoverPolicy(ctx context.Context, in api.PolicyInput) (api.Policy, error) {
	return do(ctx, s, api.RecoverPolicy.Meta, in.Policy, func(ctx context.Context, c *call) (api.Policy, error) { return c.recoverPolicy(ctx, in) })
}

func (c *call) recoverPolicy(ctx context.Context, in api.PolicyInput) (api.Policy, error) {
	pol, err := c.lookUpPolicy(ctx, in)
	if err != nil {
		return api.Policy{}, err
	}
	if err := c.policies.CheckLost(ctx, pol); err != nil {
		return api.Policy{}, err
	}
	if out, wait, err := c.policyWaits(ctx, api.RecoverPolicy.Meta, in, pol, pol.Current.ID); err != nil || wait {
		return out, err
	}
	err = c.Change(ctx, func(tx *store.Tx) (string, error) {
		return "policy " + pol.GUID.String(), c.policies.Recover(ctx, tx, pol)
	})
	if err != nil {
		return api.Policy{}, err
	}
	c.roller.Wake()
	return c.policyOf(ctx, pol.ID)
}

// RestoreSites ends the recovery mode of a site policy with two new customer keys.
func (s *Service) RestoreSites(ctx context.Context, in api.RestoreSitesInput) (api.Policy, error) {
	return do(ctx, s, api.RestoreSites.Meta, in.Body.Geo, func(ctx context.Context, c *call) (api.Policy, error) {
		c.DryRun = in.Body.DryRun
		primary, err := s.keyVersion(in.Body.Primary)
		if err != nil {
			return api.Policy{}, err
		}
		secondary, err := s.keyVersion(in.Body.Secondary)
		if err != nil {
			return api.Policy{}, err
		}
		var pol policy.Policy
		err = s.db.View(ctx, func(tx *store.Tx) error {
			geo, err := s.containers.FindGeo(ctx, tx, c.Tenant, in.Body.Geo)
			if err != nil {
				return err
			}
			var found bool
			if pol, found, err = c.sitePolicy(ctx, tx, geo); err == nil && !found {
				err = noSitePolicy(geo)
			}
			return err
		})
		if err != nil {
			return api.Policy{}, err
		}
		restore, err := s.policies.PrepareRestore(ctx, pol, primary, secondary)
		if err != nil {
			return api.Policy{}, err
		}
		err = c.Commit(ctx, restore, func(tx *store.Tx) (string, error) { return "policy " + pol.GUID.String(), restore.Commit(ctx, tx) })
		if err != nil {
			return api.Policy{}, err
		}
		out, err := c.policyOf(ctx, pol.ID)
		out.Warnings = restore.Warnings
		return out, err
	})
}

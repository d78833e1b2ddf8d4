package service

import (
	"context"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// RecoverPolicy puts a site policy whose two customer keys are lost into
// recovery mode.
func (s *Service) RecoverPolicy(ctx context.Context, in api.PolicyInput) (api.Policy, error) {
	return do(ctx, s, api.RecoverPolicy.Meta, in.Policy, func(ctx context.Context, c *call) (api.Policy, error) {
		var pol policy.Policy
		err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
			pol, err = s.Policies.Find(ctx, tx, c.tenant, in.Policy)
			return err
		})
		if err != nil {
			return api.Policy{}, err
		}
		err = s.Policies.Recover(ctx, pol, func(tx *store.Tx) error { return c.done(ctx, tx, "policy "+pol.GUID.String()) })
		if err != nil {
			return api.Policy{}, err
		}
		c.Roller.Wake()
		return c.policyOf(ctx, pol.ID)
	})
}

// RestoreSites puts a site policy in recovery mode under two new customer keys.
func (s *Service) RestoreSites(ctx context.Context, in api.RestoreSitesInput) (api.Policy, error) {
	return do(ctx, s, api.RestoreSites.Meta, in.Body.Geo, func(ctx context.Context, c *call) (api.Policy, error) {
		primary, err := s.keyVersion(in.Body.Primary)
		if err != nil {
			return api.Policy{}, err
		}
		secondary, err := s.keyVersion(in.Body.Secondary)
		if err != nil {
			return api.Policy{}, err
		}
		var pol policy.Policy
		err = s.DB.View(ctx, func(tx *store.Tx) (err error) {
			pol, err = s.Policies.Find(ctx, tx, c.tenant, sitePolicyName)
			return err
		})
		if fail.Is(err, api.NotFound) {
			return api.Policy{}, fail.New(api.NotFound, "restore sites: the geo has no site policy").
				WithHint("make one: Register-SPODataEncryptionPolicy")
		}
		if err != nil {
			return api.Policy{}, err
		}
		err = s.Policies.Restore(ctx, pol, primary, secondary, func(tx *store.Tx) error { return c.done(ctx, tx, "policy "+pol.GUID.String()) })
		if err != nil {
			return api.Policy{}, err
		}
		return c.policyOf(ctx, pol.ID)
	})
}

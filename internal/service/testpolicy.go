package service

import (
	"context"

	"keyroll/api"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// TestPolicy tests each root key of a policy by wrapping and unwrapping random bytes.
func (s *Service) TestPolicy(ctx context.Context, in api.PolicyInput) (api.List[api.Probe], error) {
	return do(ctx, s, api.TestPolicy.Meta, in.Policy, func(ctx context.Context, c *call) (api.List[api.Probe], error) {
		var none api.List[api.Probe]
		var pol policy.Policy
		err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
			pol, err = s.Policies.Find(ctx, tx, c.tenant, in.Policy)
			return err
		})
		if err != nil {
			return none, err
		}
		probes, err := s.Policies.Test(ctx, pol)
		if err != nil {
			return none, err
		}
		return api.List[api.Probe]{Items: probes}, c.recordRead(ctx)
	})
}

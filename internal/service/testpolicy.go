package service

import (
	"context"

	"keyroll/api"
)

// TestPolicy tests each root key of a policy by wrapping and unwrapping random bytes.
func (s *Service) TestPolicy(ctx context.Context, in api.PolicyInput) (api.List[api.Probe], error) {
	return do(ctx, s, api.TestPolicy.Meta, in.Policy, func(ctx context.Context, c *call) (api.List[api.Probe], error) {
		var none api.List[api.Probe]
		pol, err := c.lookUpPolicy(ctx, in)
		if err != nil {
			return none, err
		}
		probes, err := s.policies.Test(ctx, pol)
		if err != nil {
			return none, err
		}
		return api.List[api.Probe]{Items: probes}, c.RecordRead(ctx)
	})
}

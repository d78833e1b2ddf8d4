package service

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// RollAvailabilityKeys rolls the availability key of one policy of the operator's
// tenant, or of all policies that still have one. It continues after a policy that
// fails, unless the store of availability keys is unavailable.
func (s *Service) RollAvailabilityKeys(ctx context.Context, in api.RollAvailabilityKeysInput) (api.RolledAvailabilityKeys, error) {
	return do(ctx, s, api.RollAvailabilityKeys.Meta, in.Body.Policy, func(ctx context.Context, c *call) (out api.RolledAvailabilityKeys, err error) {
		policies, err := c.withAvailabilityKeys(ctx, in.Body.Policy)
		if err != nil {
			return out, err
		}
		var failed []error
		for _, pol := range policies {
			rolled, err := s.policies.RollAvailability(ctx, pol)
			out.Wraps += rolled.Wraps
			out.Destroyed += rolled.Destroyed
			if err == nil {
				out.Keys++
				continue
			}
			failed = append(failed, err)
			if ctx.Err() != nil || fail.Is(err, api.VaultUnavailable) {
				break
			}
		}
		if len(failed) > 0 {
			return out, fmt.Errorf("%d of %d availability keys were rolled; the first failure: %w", out.Keys, len(policies), failed[0])
		}
		return out, c.Change(ctx, func(tx *store.Tx) (string, error) {
			return fmt.Sprintf("%d availability keys, %d wraps, %d older versions destroyed", out.Keys, out.Wraps, out.Destroyed), nil
		})
	})
}

// withAvailabilityKeys returns the policy that identity names or, if it is empty, all
// policies whose availability key was not destroyed by a purge.
func (c *call) withAvailabilityKeys(ctx context.Context, identity string) (list []policy.Policy, err error) {
	err = c.db.View(ctx, func(tx *store.Tx) error {
		list = nil
		if identity != "" {
			pol, err := c.policies.Find(ctx, tx, c.Tenant, identity)
			list = append(list, pol)
			return err
		}
		all, err := c.policies.List(ctx, tx, c.Tenant)
		for _, pol := range all {
			if pol.Purge != policy.Purged {
				list = append(list, pol)
			}
		}
		return err
	})
	return list, err
}

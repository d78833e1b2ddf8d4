package service

import (
	"context"
	"fmt"
	"slices"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// SetPolicy changes a policy's name or description, enables or disables it.
func (s *Service) SetPolicy(ctx context.Context, in api.SetPolicyInput) (api.Policy, error) {
	return do(ctx, s, api.SetPolicy.Meta, in.Policy, func(ctx context.Context, c *call) (api.Policy, error) {
		c.dryRun = in.Body.DryRun
		pol, err := c.policy(ctx, in.Policy)
		if err != nil {
			return api.Policy{}, err
		}
		if name := in.Body.Name; name != nil {
			if err := checkPolicyName(*name); err != nil {
				return api.Policy{}, err
			}
		}
		err = s.Policies.Set(ctx, pol, policy.Settings{Name: in.Body.Name, Description: in.Body.Description, Enabled: in.Body.Enabled}, func(tx *store.Tx, now policy.Policy) error {
			if !now.Enabled {
				n, err := s.Containers.CountWithPolicy(ctx, tx, c.tenant, now.ID)
				if err != nil {
					return err
				}
				if n > 0 {
					return fail.New(api.Conflict, "disable policy %q: %d mailboxes have it as their own", now.Name, n).
						WithHint("assign another policy to them, or take all of them back: keyroll policy leave %q", now.Name)
				}
			}
			return c.done(ctx, tx, "policy "+now.GUID.String())
		})
		if err != nil {
			return api.Policy{}, err
		}
		return c.policyOf(ctx, pol.ID)
	})
}

// ReplacePolicyKeys puts a policy under two other customer keys.
func (s *Service) ReplacePolicyKeys(ctx context.Context, in api.ReplacePolicyKeysInput) (api.Refreshed, error) {
	return do(ctx, s, api.ReplacePolicyKeys.Meta, in.Policy, func(ctx context.Context, c *call) (api.Refreshed, error) {
		depth, err := depthOf(in.Body.Depth)
		if err != nil {
			return api.Refreshed{}, err
		}
		primary, secondary, err := s.twoKeys(in.Body.Keys)
		if err != nil {
			return api.Refreshed{}, fmt.Errorf("replace the keys of policy %q: %w", in.Policy, err)
		}
		return c.change(ctx, in.Policy, depth, in.Body.RollOptions, func(pol policy.Policy, also func(*store.Tx, policy.Change) error) (policy.Change, error) {
			return s.Policies.Replace(ctx, pol, primary, secondary, depth, also)
		})
	})
}

// AssignPolicy assigns a multi-workload policy to the tenant and begins to bring
// over what the policy before it covered: active mailboxes without a policy of
// their own, and the workload stores.
func (s *Service) AssignPolicy(ctx context.Context, in api.AssignPolicyInput) (api.Policy, error) {
	return do(ctx, s, api.AssignPolicy.Meta, in.Body.Policy, func(ctx context.Context, c *call) (api.Policy, error) {
		c.dryRun = in.Body.DryRun
		pol, err := c.policy(ctx, in.Body.Policy)
		if err != nil {
			return api.Policy{}, err
		}
		err = s.Policies.Assign(ctx, pol, func(tx *store.Tx, now policy.Policy, before int64) error {
			if before != now.ID {
				if err := c.checkNoIncoming(ctx, tx, before); err != nil {
					return err
				}
				if err := c.bring(ctx, tx, roll.Start{Policy: now, Source: before}); err != nil {
					return err
				}
			}
			return c.done(ctx, tx, "policy "+now.GUID.String())
		})
		if err != nil {
			return api.Policy{}, err
		}
		s.Roller.Wake()
		return c.policyOf(ctx, pol.ID)
	})
}

// ShowAssignment shows the policy that is assigned to the tenant.
func (s *Service) ShowAssignment(ctx context.Context, _ api.None) (out api.Policy, err error) {
	return do(ctx, s, api.ShowAssignment.Meta, "", func(ctx context.Context, c *call) (api.Policy, error) {
		return out, c.read(ctx, func(tx *store.Tx) error {
			pol, err := s.Policies.Assigned(ctx, tx, c.tenant)
			if err != nil {
				return err
			}
			out, err = c.show(ctx, tx, pol)
			return err
		})
	})
}

// leaves are the classes that a policy that is left gives up: all but the
// directory, which never stands under one.
var leaves = slices.DeleteFunc(slices.Clone(policy.Classes), func(c envelope.Class) bool { return c == envelope.ClassDirectory })

// LeavePolicy ends a policy and begins to bring everything under it to where it
// stands without it. When that is done, no customer key of it is needed.
func (s *Service) LeavePolicy(ctx context.Context, in api.LeavePolicyInput) (api.Refreshed, error) {
	return do(ctx, s, api.LeavePolicy.Meta, in.Policy, func(ctx context.Context, c *call) (api.Refreshed, error) {
		c.dryRun = in.DryRun
		pol, err := c.policy(ctx, in.Policy)
		if err != nil {
			return api.Refreshed{}, err
		}
		err = s.Policies.Leave(ctx, pol, func(tx *store.Tx, left, to policy.Policy) error {
			if err := c.checkNoIncoming(ctx, tx, left.ID, to.ID); err != nil {
				return err
			}
			if _, err := s.Containers.Release(ctx, tx, c.tenant, left.ID); err != nil {
				return err
			}
			if err := roll.Leave(ctx, tx, left, s.Now()); err != nil {
				return err
			}
			if err := c.bring(ctx, tx, roll.Start{Policy: to, Source: left.ID, Classes: leaves}); err != nil {
				return err
			}
			return c.done(ctx, tx, fmt.Sprintf("policy %s, to policy %s", left.GUID, to.GUID))
		})
		if err != nil {
			return api.Refreshed{}, err
		}
		s.Roller.Wake()
		out, err := c.policyOf(ctx, pol.ID)
		return api.Refreshed{Policy: out}, err
	})
}

// bring begins a roll to a policy's current policy key.
func (c *call) bring(ctx context.Context, tx *store.Tx, start roll.Start) error {
	rev, err := c.Policies.RevisionOf(ctx, tx, c.tenant, start.Policy.Current.ID)
	if err != nil {
		return err
	}
	start.Revision = rev.GUID
	_, err = roll.Begin(ctx, tx, c.Policies, start, c.Now())
	return err
}

// checkNoIncoming refuses while containers are on their way to a policy from
// another one: who takes the policy's place would miss them. Those that come
// from one of back are where they are to go.
func (c *call) checkNoIncoming(ctx context.Context, tx *store.Tx, id int64, back ...int64) error {
	latest, ok, err := roll.Latest(ctx, tx, c.tenant, id)
	if err != nil || !ok || !latest.Unfinished() || latest.Source == 0 || slices.Contains(back, latest.Source) {
		return err
	}
	pol, err := c.Policies.ByID(ctx, tx, c.tenant, id)
	if err != nil {
		return err
	}
	return c.rolling(ctx, tx, pol, latest, "wait until all have come over; keyroll roll watch %d shows it")
}

// policy finds a policy by its name, its GUID, that of a revision, or the admin
// site of its geo.
func (c *call) policy(ctx context.Context, identity string) (pol policy.Policy, err error) {
	return pol, c.DB.View(ctx, func(tx *store.Tx) (err error) {
		pol, err = c.findPolicy(ctx, tx, identity)
		return err
	})
}

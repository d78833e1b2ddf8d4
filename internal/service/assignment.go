package service

import (
	"context"
	"fmt"
	"slices"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/policy"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// SetPolicy changes a policy's name or description, enables or disables it.
func (s *Service) SetPolicy(ctx context.Context, in api.SetPolicyInput) (api.Policy, error) {
	return do(ctx, s, api.SetPolicy.Meta, in.Policy, func(ctx context.Context, c *call) (api.Policy, error) {
		c.DryRun = in.Body.DryRun
		pol, err := c.lookUpPolicy(ctx, in.PolicyInput)
		if err != nil {
			return api.Policy{}, err
		}
		if name := in.Body.Name; name != nil {
			if err := checkPolicyName(*name); err != nil {
				return api.Policy{}, err
			}
		}
		err = c.Change(ctx, func(tx *store.Tx) (string, error) {
			now, err := s.policies.Set(ctx, tx, pol, policy.Settings{Name: in.Body.Name, Description: in.Body.Description, Enabled: in.Body.Enabled})
			if err != nil {
				return "", err
			}
			if !now.Enabled {
				n, err := s.containers.CountWithPolicy(ctx, tx, c.Tenant, now.ID)
				if err != nil {
					return "", err
				}
				if n > 0 {
					return "", fail.New(api.Conflict, "disable policy %q: it is assigned to %d mailboxes", now.Name, n).
						WithHint("assign another policy to them, or end the policy: keyroll policy leave %q", now.Name)
				}
			}
			return "policy " + now.GUID.String(), nil
		})
		if err != nil {
			return api.Policy{}, err
		}
		return c.policyOf(ctx, pol.ID)
	})
}

// ReplacePolicyKeys replaces both customer keys of a policy.
func (s *Service) ReplacePolicyKeys(ctx context.Context, in api.ReplacePolicyKeysInput) (api.Refreshed, error) {
	return do(ctx, s, api.ReplacePolicyKeys.Meta, in.Policy, func(ctx context.Context, c *call) (api.Refreshed, error) {
		depth, err := depthOf(in.Body.Depth)
		if err != nil {
			return api.Refreshed{}, err
		}
		primary, secondary, err := s.parseTwoKeys(in.Body.Keys)
		if err != nil {
			return api.Refreshed{}, fmt.Errorf("replace the keys of policy %q: %w", in.Policy, err)
		}
		return c.changeKeys(ctx, in.PolicyInput, policy.Request{Act: policy.Replace, Primary: primary, Secondary: secondary, Depth: depth}, in.Body.RollOptions)
	})
}

// AssignPolicy assigns a multi-workload policy to the tenant and begins to move what the
// policy before it covered: active mailboxes without a policy of their own, and the
// workload stores.
func (s *Service) AssignPolicy(ctx context.Context, in api.AssignPolicyInput) (api.Policy, error) {
	return do(ctx, s, api.AssignPolicy.Meta, in.Body.Policy, func(ctx context.Context, c *call) (api.Policy, error) { return c.assignPolicy(ctx, in) })
}

func (c *call) assignPolicy(ctx context.Context, in api.AssignPolicyInput) (api.Policy, error) {
	c.DryRun = in.Body.DryRun
	pol, err := c.lookUpPolicy(ctx, api.PolicyInput{Policy: in.Body.Policy})
	if err != nil {
		return api.Policy{}, err
	}
	before, err := c.assigned(ctx)
	if err != nil {
		return api.Policy{}, err
	}
	if before.ID != pol.ID {
		if out, wait, err := c.policyWaits(ctx, api.AssignPolicy.Meta, in, pol, before.Current.ID); err != nil || wait {
			return out, err
		}
	}
	err = c.Change(ctx, func(tx *store.Tx) (string, error) {
		now, before, err := c.policies.Assign(ctx, tx, pol)
		if err != nil {
			return "", err
		}
		if before != now.ID {
			if err := c.checkNoIncoming(ctx, tx, before); err != nil {
				return "", err
			}
			if err := c.beginRoll(ctx, tx, roll.Start{Policy: now, Source: before}); err != nil {
				return "", err
			}
		}
		fault.Point("assignment.before-commit")
		return "policy " + now.GUID.String(), nil
	})
	if err != nil {
		return api.Policy{}, err
	}
	fault.Point("assignment.after-commit")
	c.roller.Wake()
	return c.policyOf(ctx, pol.ID)
}

// assigned returns the policy that is assigned to the tenant, or the service-managed one.
func (c *call) assigned(ctx context.Context) (pol policy.Policy, err error) {
	return pol, c.db.View(ctx, func(tx *store.Tx) (err error) {
		pol, err = c.policies.Assigned(ctx, tx, c.Tenant)
		if fail.Is(err, api.NotFound) {
			var id int64
			if id, err = c.policies.ServiceManaged(ctx, tx, c.Tenant); err == nil {
				pol, err = c.policies.ByID(ctx, tx, c.Tenant, id)
			}
		}
		return err
	})
}

// policyWaits stores an act on a policy until it is approved, if the policy key that it
// replaces is revoked, and returns the policy as it is.
func (c *call) policyWaits(ctx context.Context, op api.Meta, in any, pol policy.Policy, replaced int64) (out api.Policy, wait bool, err error) {
	if wait, err = c.needsApproval(ctx, op, replaced); err != nil || !wait {
		return out, wait, err
	}
	if out, err = c.policyOf(ctx, pol.ID); err == nil {
		out.PendingApproval, err = c.RequestApproval(ctx, c.Call, op, in)
	}
	return out, true, err
}

// ShowAssignment shows the policy that is assigned to the tenant.
func (s *Service) ShowAssignment(ctx context.Context, _ api.None) (out api.Policy, err error) {
	return do(ctx, s, api.ShowAssignment.Meta, "", func(ctx context.Context, c *call) (api.Policy, error) {
		return out, c.Read(ctx, func(tx *store.Tx) error {
			pol, err := s.policies.Assigned(ctx, tx, c.Tenant)
			if err != nil {
				return err
			}
			out, err = c.showPolicy(ctx, tx, pol)
			return err
		})
	})
}

// leaveClasses are the classes that are moved when a policy is left: all except the
// directory, which is never under a policy.
var leaveClasses = slices.DeleteFunc(slices.Clone(policy.Classes), func(c envelope.Class) bool { return c == envelope.ClassDirectory })

// LeavePolicy ends a policy and begins to move everything under it to the policy that
// applies without it. When the roll is finished, no customer key of the policy is needed.
func (s *Service) LeavePolicy(ctx context.Context, in api.LeavePolicyInput) (api.Refreshed, error) {
	return do(ctx, s, api.LeavePolicy.Meta, in.Policy, func(ctx context.Context, c *call) (api.Refreshed, error) { return c.leavePolicy(ctx, in) })
}

func (c *call) leavePolicy(ctx context.Context, in api.LeavePolicyInput) (api.Refreshed, error) {
	c.DryRun = in.DryRun
	pol, err := c.lookUpPolicy(ctx, in.PolicyInput)
	if err != nil {
		return api.Refreshed{}, err
	}
	if out, wait, err := c.policyWaits(ctx, api.LeavePolicy.Meta, in, pol, pol.Current.ID); err != nil || wait {
		return api.Refreshed{Policy: out}, err
	}
	err = c.Change(ctx, func(tx *store.Tx) (string, error) {
		left, to, err := c.policies.Leave(ctx, tx, pol)
		if err != nil {
			return "", err
		}
		if err := c.checkNoIncoming(ctx, tx, left.ID, to.ID); err != nil {
			return "", err
		}
		if _, err := c.containers.Release(ctx, tx, c.Tenant, left.ID); err != nil {
			return "", err
		}
		if err := roll.Leave(ctx, tx, left, c.now()); err != nil {
			return "", err
		}
		if err := c.beginRoll(ctx, tx, roll.Start{Policy: to, Source: left.ID, Classes: leaveClasses}); err != nil {
			return "", err
		}
		fault.Point("leave.before-commit")
		return fmt.Sprintf("policy %s, to policy %s", left.GUID, to.GUID), nil
	})
	if err != nil {
		return api.Refreshed{}, err
	}
	fault.Point("leave.after-commit")
	c.roller.Wake()
	out, err := c.policyOf(ctx, pol.ID)
	return api.Refreshed{Policy: out}, err
}

// beginRoll begins a roll to a policy's current policy key.
func (c *call) beginRoll(ctx context.Context, tx *store.Tx, start roll.Start) error {
	rev, err := c.policies.RevisionOf(ctx, tx, c.Tenant, start.Policy.Current.ID)
	if err != nil {
		return err
	}
	start.Revision = rev.GUID
	_, err = roll.Begin(ctx, tx, c.policies, start, c.now())
	return err
}

// checkNoIncoming refuses a change while a roll moves containers to the policy from
// another one, because the change would not include them. A roll from one of the
// policies in except is allowed: its containers are to go back there.
func (c *call) checkNoIncoming(ctx context.Context, tx *store.Tx, id int64, except ...int64) error {
	latest, ok, err := roll.Latest(ctx, tx, c.Tenant, id)
	if err != nil || !ok || !latest.Unfinished() || latest.Source == 0 || slices.Contains(except, latest.Source) {
		return err
	}
	pol, err := c.policies.ByID(ctx, tx, c.Tenant, id)
	if err != nil {
		return err
	}
	return c.rollInProgress(ctx, tx, pol, latest, "wait until all are moved; keyroll roll watch %d follows the roll")
}

// lookUpPolicy is findPolicy in a snapshot of its own.
func (c *call) lookUpPolicy(ctx context.Context, in api.PolicyInput) (pol policy.Policy, err error) {
	return pol, c.db.View(ctx, func(tx *store.Tx) (err error) {
		pol, err = c.findPolicy(ctx, tx, in)
		return err
	})
}

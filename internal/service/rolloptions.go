package service

import (
	"context"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// CancelRoll ends a roll that has moved nothing yet.
func (s *Service) CancelRoll(ctx context.Context, in api.RollInput) (out api.Roll, err error) {
	return do(ctx, s, api.CancelRoll.Meta, in.Roll, func(ctx context.Context, c *call) (api.Roll, error) {
		var ro roll.Roll
		err := c.Change(ctx, func(tx *store.Tx) (_ string, err error) {
			if ro, err = roll.Find(ctx, tx, c.Tenant, in.Roll); err != nil {
				return "", err
			}
			if err := roll.Cancel(ctx, tx, s.policies, ro, s.now()); err != nil {
				return "", err
			}
			if ro, err = roll.Find(ctx, tx, c.Tenant, in.Roll); err != nil {
				return "", err
			}
			if out, err = s.roller.Progress(ctx, tx, ro); err != nil {
				return "", err
			}
			return "", nil
		})
		if err == nil {
			s.Retire(c.Tenant, ro.Policy) // as at the end of any roll
		}
		return out, err
	})
}

// rollOptions checks and converts the options of a roll at a depth.
func rollOptions(depth api.Depth, in api.RollOptions) (o roll.Options, err error) {
	o = roll.Options{IncludeInactive: in.IncludeInactive, ContainersPerSecond: in.ContainersPerSecond, BytesPerSecond: in.BytesPerSecond}
	if in.Deadline != "" {
		if o.Deadline, err = time.ParseDuration(in.Deadline); err != nil || o.Deadline <= 0 {
			return o, fail.New(api.InvalidArgument, "deadline %.40q is not a valid duration above 0", in.Deadline).
				WithHint("write it in hours and minutes, such as 24h or 1h30m")
		}
	}
	switch {
	case o.ContainersPerSecond < 0 || o.BytesPerSecond < 0:
		return o, fail.New(api.InvalidArgument, "a rate limit must be above 0, or 0 for no limit")
	case depth == api.DepthRoot && o != roll.Options{}:
		return o, fail.New(api.InvalidArgument, "depth root moves no containers, so roll options cannot be used with it").
			WithHint("to re-wrap the policy keys of inactive mailboxes too, choose all generations (--all-generations, -AllGenerations)")
	case depth != api.DepthContent && o.BytesPerSecond > 0:
		return o, fail.New(api.InvalidArgument, "bytes per second can be limited only at depth content; depth %s re-encrypts no content", depth).
			WithHint("limit the containers per second")
	}
	return o, nil
}

// sweep begins a roll to the current policy key if there is no newer key version for
// a new one.
func (c *call) sweep(ctx context.Context, pol policy.Policy, options roll.Options) error {
	return c.Change(ctx, func(tx *store.Tx) (string, error) {
		if err := tx.Lock(ctx, pol.ID, true); err != nil {
			return "", err
		}
		now, err := c.policies.ByID(ctx, tx, c.Tenant, pol.ID)
		if err != nil {
			return "", err
		}
		if err := now.CheckAccepting(); err != nil {
			return "", err
		}
		if err := c.checkNoRoll(ctx, tx, now); err != nil {
			return "", err
		}
		err = c.beginRoll(ctx, tx, roll.Start{Policy: now, Options: options})
		return fmt.Sprintf("policy %s, no newer version: everything is moved under its current policy key", now.GUID), err
	})
}

// estimate returns what a change and its roll, or a sweep, would do. took is how long
// the vaults needed to wrap and unwrap policy keys.
func (c *call) estimate(ctx context.Context, change *policy.PreparedChange, swept bool, start roll.Start, took time.Duration) (*api.Estimate, error) {
	out := &api.Estimate{PolicyKeys: int64(change.Rewrapped()), Seconds: took.Seconds(), Basis: "the time that the vaults took"}
	switch {
	case swept:
	case change.NewKey:
		out.PolicyKeys++
		start.Policy.Current = policy.KeyRow{}
	default:
		return out, nil // no container is moved
	}
	return out, c.db.View(ctx, func(tx *store.Tx) error {
		plan, err := roll.Plan(ctx, tx, c.policies, start, c.now())
		if err == nil {
			err = c.roller.Estimate(ctx, tx, plan, out)
		}
		return err
	})
}

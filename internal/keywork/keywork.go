// Package keywork does the daily work on the root keys of policies: it rolls availability
// keys that are old, and runs any other pass once a day on one of several nodes. Start
// reading at Daily.
package keywork

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/fail"
	"keyroll/internal/lease"
	"keyroll/internal/policy"
	"keyroll/internal/retry"
	"keyroll/internal/store"
)

// How long after a pass the next one begins.
const (
	interval = 24 * time.Hour
	again    = time.Hour       // after a failure
	poll     = 2 * time.Second // while another node, which may die, makes one
)

// Pass is work that is done once a day.
type Pass struct {
	Name string // of its lease
	Work func(ctx context.Context) error
	// Leases are those of this node; nil: it is the only node.
	Leases *lease.Leases
	Logger *slog.Logger
}

// Daily makes a pass at once and then one a day, until ctx is done. While another node
// makes one, this one waits. A pass that fails is made again after an hour.
func Daily(ctx context.Context, p Pass) {
	loop := retry.Loop{First: again, Longest: again}
	loop.Run(ctx, func(ctx context.Context) retry.Next {
		held, err := p.Leases.Hold(ctx, p.Name, p.Work)
		switch {
		case err != nil && ctx.Err() == nil:
			p.Logger.WarnContext(ctx, "a daily pass did not do all of its work; it will be repeated", "pass", p.Name, "after", again, "error", err)
			return retry.Blocked(0)
		case err == nil && !held:
			return retry.After(poll)
		}
		return retry.After(interval)
	})
}

// AvailabilityRoller rolls availability keys when they reach a certain age.
type AvailabilityRoller struct {
	DB       *store.DB
	Policies *policy.Policies
	Every    time.Duration // the age at which a version is replaced
	Tenants  func(ctx context.Context) ([]int64, error)
	Logger   *slog.Logger
}

// RollDue rolls every availability key whose newest version is old enough, finishes
// interrupted rolls, and destroys the versions that they left. It stops at once when
// the store of availability keys is unavailable.
func (a *AvailabilityRoller) RollDue(ctx context.Context) error {
	ctx = audit.WithOrigin(ctx, audit.Origin{Operation: api.RollAvailabilityKeys.Name, Request: "schedule", System: true})
	tenants, err := a.Tenants(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, tenant := range tenants {
		var all []policy.Policy
		err := a.DB.View(ctx, func(tx *store.Tx) (err error) {
			all, err = a.Policies.List(ctx, tx, tenant)
			return err
		})
		if err != nil {
			return err
		}
		for _, pol := range all {
			if pol.Purge == policy.Purged {
				continue
			}
			rolled, err := a.Policies.RollAvailabilityIfDue(ctx, pol, a.Every)
			if rolled.Wraps > 0 {
				a.Logger.InfoContext(ctx, "rolled an availability key", "policy", pol.GUID, "version", rolled.Version, "wraps", rolled.Wraps, "destroyed", rolled.Destroyed)
			}
			if err != nil && ctx.Err() != nil || fail.Is(err, api.VaultUnavailable) {
				return err
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...) // only for the log
}

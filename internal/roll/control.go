package roll

import (
	"context"
	"fmt"
	"slices"
	"time"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/profiles"
	"keyroll/internal/store"
)

// Options are the settings of a roll that a user may choose.
type Options struct {
	// IncludeInactive also moves what a roll leaves out by default: mailboxes
	// that are not active, and backups.
	IncludeInactive bool
	// ContainersPerSecond and BytesPerSecond are its rate limits, 0 for none.
	ContainersPerSecond, BytesPerSecond int64
	// Deadline is how long it may take before it is late; default: 72 hours.
	Deadline time.Duration
}

// inactiveClasses are the classes that no profile rolls by default.
var inactiveClasses = []envelope.Class{envelope.ClassInactive, envelope.ClassDisconnected, envelope.ClassDisabled, envelope.ClassBackup}

// apply sets the fields of a new roll that the options determine.
func (o Options) apply(r *Roll) {
	if o.IncludeInactive {
		r.Classes = union(r.Classes, inactiveClasses)
	}
	r.ContainersPerSecond, r.BytesPerSecond = o.ContainersPerSecond, o.BytesPerSecond
	if o.Deadline == 0 {
		o.Deadline = defaultDeadline
	}
	r.Deadline = r.Started.Add(o.Deadline)
}

// union returns the classes of both lists, each once.
func union(a, b []envelope.Class) []envelope.Class {
	for _, class := range b {
		if !slices.Contains(a, class) {
			a = append(a, class)
		}
	}
	return a
}

// cancelled is the message of a cancelled roll.
const cancelled = "cancelled before any container was moved: existing containers stay under the older keys, as the ledger shows, " +
	"and new ones use the current policy key; a refresh moves all of them to one key"

// cancelBlockers are the reasons for which a roll cannot be cancelled. The first
// that fits is reported, with a hint that is formatted with the roll's id and the
// name of its policy.
var cancelBlockers = []struct {
	fits      func(r Roll, to, source policy.Policy) bool
	why, hint string
}{
	{func(r Roll, _, _ policy.Policy) bool { return !r.Unfinished() },
		"it has already ended", "keyroll roll show %[1]d shows its result"},
	{func(r Roll, _, _ policy.Policy) bool { return !r.Begun.IsZero() },
		"it has begun to move containers, and they cannot be moved back", "let it finish, or pause it: keyroll roll pause %[1]d"},
	{func(r Roll, _, source policy.Policy) bool { return r.Source != 0 && !source.Left.IsZero() },
		"it moves the containers of a policy that was left for good", "let it finish, or pause it: keyroll roll pause %[1]d"},
	{func(r Roll, to, _ policy.Policy) bool { return r.Source != 0 && profiles.Of(to.Kind).OnePerGeo },
		"it registers a site policy, which would cover sites that it does not protect", "let it finish, or pause it: keyroll roll pause %[1]d; keyroll policy leave %[2]q undoes the registration"},
	{func(r Roll, _, _ policy.Policy) bool { return r.Source != 0 },
		"it moves containers from another policy, which no longer covers them", "let it finish, or pause it: keyroll roll pause %[1]d; another policy can be assigned once it has ended"},
	{func(_ Roll, to, _ policy.Policy) bool { return profiles.Of(to.Kind).SingleRoll },
		"its policy would be Registered under a key that protects none of its sites", "let it finish, or pause it: keyroll roll pause %[1]d"},
}

// Cancel ends a roll that has not moved any container yet. The containers stay
// readable under their older keys, and the current policy key stays current. Any
// other roll is refused with the reason.
func Cancel(ctx context.Context, tx *store.Tx, policies *policy.Policies, r Roll, now time.Time) error {
	locks := []int64{r.Policy}
	if r.Source != 0 {
		locks = append(locks, r.Source)
	}
	if err := policy.LockAll(ctx, tx, locks...); err != nil { // until the commit no page is swapped and no roll begins
		return err
	}
	r, err := byID(ctx, tx, r.Tenant, r.ID)
	if err != nil {
		return err
	}
	to, err := policies.ByID(ctx, tx, r.Tenant, r.Policy)
	if err != nil {
		return err
	}
	var source policy.Policy
	if r.Source != 0 {
		if source, err = policies.ByID(ctx, tx, r.Tenant, r.Source); err != nil {
			return err
		}
	}
	for _, reason := range cancelBlockers {
		if reason.fits(r, to, source) {
			return fail.New(api.Conflict, "cancel roll %d of policy %q, which is %s: %s", r.ID, to.Name, r.State, reason.why).
				WithHint(reason.hint, r.ID, to.Name)
		}
	}
	_, err = setState(ctx, tx, r, change{r.State, api.RollCancelled, cancelled, now})
	return err
}

// isLate reports whether a roll is past its deadline, or will be at its present
// rate. A roll that has ended is not late, and one that is paused has no rate.
func isLate(r Roll, etaSeconds float64, now time.Time) bool {
	return r.Unfinished() && etaSeconds > r.Deadline.Sub(now).Seconds()
}

// warnIfLate writes to both logs that a roll is late, once for all nodes and starts.
func (r *Roller) warnIfLate(ctx context.Context, ro Roll) error {
	var progress api.Roll
	warned := false // by this node
	err := r.config.DB.View(ctx, func(tx *store.Tx) error {
		now, err := byID(ctx, tx, ro.Tenant, ro.ID)
		if err == nil && now.Warned.IsZero() {
			progress, err = r.Progress(ctx, tx, now)
		}
		return err
	})
	if err != nil || !progress.Late {
		return err
	}
	err = r.config.DB.InTx(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE roll SET warned = ?3 WHERE tenant = ?1 AND id = ?2 AND warned = 0`, ro.Tenant, ro.ID, r.config.Now().UnixMilli())
		if warned = n == 1; err != nil || !warned {
			return err
		}
		return audit.Notice(ctx, tx, audit.Entry{Tenant: ro.Tenant, Outcome: audit.Late, Detail: fmt.Sprintf("roll %d of policy %s, whose deadline is %s, is late: %d of %d containers have been moved",
			ro.ID, progress.PolicyID, progress.Deadline.Format(time.RFC3339), progress.Done, progress.Total)}, r.config.Now())
	})
	if warned {
		r.config.Logger.WarnContext(ctx, "a roll is late", "roll", ro.ID, "policy", progress.Policy, "deadline", progress.Deadline,
			"complete", progress.PercentComplete, "remaining", progress.Remaining, "seconds left", progress.ETASeconds)
	}
	return err
}

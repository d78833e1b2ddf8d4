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
	"keyroll/internal/store"
)

// Options say how a roll goes about its work.
type Options struct {
	// IncludeInactive brings over, too, what no roll does by itself: mailboxes
	// that are not active, and backups.
	IncludeInactive bool
	// ContainersPerSecond and BytesPerSecond are its rate limits, 0 for none.
	ContainersPerSecond, BytesPerSecond int64
	// Deadline is how long it may take before it is late; 0 stands for Deadline.
	Deadline time.Duration
}

// atRest are the classes that no profile rolls by itself.
var atRest = []envelope.Class{envelope.ClassInactive, envelope.ClassDisconnected, envelope.ClassDisabled, envelope.ClassBackup}

// apply gives a new roll what its options say.
func (o Options) apply(r *Roll) {
	if o.IncludeInactive {
		r.Classes = union(r.Classes, atRest)
	}
	r.ContainersPerSecond, r.BytesPerSecond = o.ContainersPerSecond, o.BytesPerSecond
	if o.Deadline == 0 {
		o.Deadline = Deadline
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

// cancelled is what a cancelled roll says of itself.
const cancelled = "cancelled before any container was moved: existing containers stay under the older keys, as the ledger shows, " +
	"and new ones use the current policy key; a refresh moves all of them to one key"

// held are the reasons not to cancel a roll, of which the first that fits is
// given, with what to do instead: hint takes the roll's id and its policy's name.
var held = []struct {
	fits      func(r Roll, to, source policy.Policy) bool
	why, hint string
}{
	{func(r Roll, _, _ policy.Policy) bool { return !r.Unfinished() },
		"it has already ended", "keyroll roll show %[1]d shows its result"},
	{func(r Roll, _, _ policy.Policy) bool { return !r.Begun.IsZero() },
		"it has begun to move containers, and they cannot be moved back", "let it finish, or pause it: keyroll roll pause %[1]d"},
	{func(r Roll, _, source policy.Policy) bool { return r.Source != 0 && !source.Left.IsZero() },
		"it moves the containers of a policy that was left for good", "let it finish, or pause it: keyroll roll pause %[1]d"},
	{func(r Roll, to, _ policy.Policy) bool { return r.Source != 0 && policy.ProfileOf(to.Kind).OneAGeo },
		"it registers a site policy, which would cover sites that it does not protect", "let it finish, or pause it: keyroll roll pause %[1]d; keyroll policy leave %[2]q undoes the registration"},
	{func(r Roll, _, _ policy.Policy) bool { return r.Source != 0 },
		"it moves containers from another policy, which no longer covers them", "let it finish, or pause it: keyroll roll pause %[1]d; another policy can be assigned once it has ended"},
	{func(_ Roll, to, _ policy.Policy) bool { return policy.ProfileOf(to.Kind).OneRoll },
		"its policy would be Registered under a key that protects none of its sites", "let it finish, or pause it: keyroll roll pause %[1]d"},
}

// Cancel ends a roll that has brought nothing over yet. What it was to bring
// over stays where it is, readable under its older key, and the policy key that
// is current stays current. Any other roll is refused with the reason.
func Cancel(ctx context.Context, tx *store.Tx, policies *policy.Policies, r Roll, now time.Time) error {
	locks := []int64{r.Policy}
	if r.Source != 0 {
		locks = append(locks, r.Source)
	}
	if err := policy.LockAll(ctx, tx, locks...); err != nil { // no page is swapped, and no roll begun, meanwhile
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
	for _, reason := range held {
		if reason.fits(r, to, source) {
			return fail.New(api.Conflict, "cancel roll %d of policy %q, which is %s: %s", r.ID, to.Name, r.State, reason.why).
				WithHint(reason.hint, r.ID, to.Name)
		}
	}
	_, err = setState(ctx, tx, r, r.State, api.RollCancelled, cancelled, now)
	return err
}

// did notes what a transaction of a roll that stands as now did: whether it
// brought anything over, and how many pages somebody else had changed.
func did(ctx context.Context, tx *store.Tx, now Roll, brought bool, lost int, at time.Time) error {
	if (!brought || !now.Begun.IsZero()) && lost == 0 {
		return nil
	}
	var begun int64
	if brought {
		begun = at.UnixMilli()
	}
	_, err := tx.Exec(ctx, `UPDATE roll SET begun = CASE WHEN begun = 0 THEN ?3 ELSE begun END, retries = retries + ?4 WHERE tenant = ?1 AND id = ?2`,
		now.Tenant, now.ID, begun, lost)
	return err
}

// late says that a roll runs past its deadline, or will at its present rate. One
// that has ended is not late any more, and one at rest has no rate.
func late(r Roll, etaSeconds float64, now time.Time) bool {
	return r.Unfinished() && etaSeconds > r.Deadline.Sub(now).Seconds()
}

// warnLate tells both logs that a roll is late, once for all nodes and starts.
func (r *Roller) warnLate(ctx context.Context, ro Roll) error {
	var progress api.Roll
	told := false // by this node
	err := r.DB.View(ctx, func(tx *store.Tx) error {
		now, err := byID(ctx, tx, ro.Tenant, ro.ID)
		if err == nil && now.Warned.IsZero() {
			progress, err = r.Progress(ctx, tx, now)
		}
		return err
	})
	if err != nil || !progress.Late {
		return err
	}
	err = r.DB.InTx(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE roll SET warned = ?3 WHERE tenant = ?1 AND id = ?2 AND warned = 0`, ro.Tenant, ro.ID, r.Now().UnixMilli())
		if told = n == 1; err != nil || !told {
			return err
		}
		return audit.Notice(ctx, tx, audit.Entry{Tenant: ro.Tenant, Outcome: audit.Late, Detail: fmt.Sprintf("roll %d of policy %s, whose deadline is %s, is late: %d of %d containers have been moved",
			ro.ID, progress.PolicyID, progress.Deadline.Format(time.RFC3339), progress.Done, progress.Total)}, r.Now())
	})
	if told {
		r.Logger.WarnContext(ctx, "a roll is late", "roll", ro.ID, "policy", progress.Policy, "deadline", progress.Deadline,
			"complete", progress.PercentComplete, "remaining", progress.Remaining, "seconds left", progress.ETASeconds)
	}
	return err
}

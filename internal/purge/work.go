package purge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/lease"
	"keyroll/internal/policy"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// Job is the purge's name in the audit log.
const Job = "Purge"

const (
	// longestWait bounds the time between two tries of a purge that cannot go on.
	longestWait = 30 * time.Second
	// lookEvery is how often a node looks for purges that were approved on another
	// one, or left because that one died.
	lookEvery = 2 * time.Second
)

// Run carries approved purges out until ctx is done, also those that the
// process before it had begun. One that cannot go on, because the store of
// availability keys is away, says so and is tried again.
func (p *Purger) Run(ctx context.Context) {
	for wait := time.Second; ; {
		var waits bool
		_, err := p.Leases.Hold(ctx, "purge", func(ctx context.Context) error {
			waits = p.round(ctx)
			return nil
		})
		if err != nil && ctx.Err() == nil {
			p.Logger.ErrorContext(ctx, "approved purges could not be looked for", "error", err)
		}
		var retry <-chan time.Time
		switch {
		case waits:
			retry = time.After(wait)
			wait = min(2*wait, longestWait)
		case p.Leases != nil:
			retry = time.After(lookEvery)
			wait = time.Second
		default:
			wait = time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-retry:
		}
	}
}

// round works on every approved purge, and says whether one has to be tried again.
func (p *Purger) round(ctx context.Context) (waits bool) {
	var list []Purge
	err := p.DB.View(ctx, func(tx *store.Tx) (err error) {
		list, err = query(ctx, tx, approved, approvals)
		return err
	})
	if err != nil && ctx.Err() == nil {
		p.Logger.ErrorContext(ctx, "approved purges could not be listed", "error", err)
		return true
	}
	for _, one := range list {
		if err := p.Work(ctx, one); err != nil && ctx.Err() == nil {
			p.Logger.WarnContext(ctx, "a purge could not go on; it is tried again", "policy", one.Policy, "error", err)
			waits = true
		}
	}
	return waits
}

// Work carries an approved purge out, or notes why it cannot go on.
func (p *Purger) Work(ctx context.Context, one Purge) error {
	ctx = audit.WithOrigin(ctx, audit.Origin{Operation: Job, Request: fmt.Sprintf("purge %d", one.ID), Principal: one.Requester, System: true})
	if err := p.confirm(ctx, one); err != nil {
		return p.waiting(ctx, one, err)
	}
	for _, step := range []struct {
		done time.Time
		do   func(context.Context, Purge) error
	}{
		{one.PolicyDeleted, p.deletePolicy},
		{time.Time{}, p.dropKeys},
		{one.ContainersMarked, p.markContainers},
		{one.KeyDestroyed, p.destroyKey},
	} {
		if !step.done.IsZero() {
			continue
		}
		if err := step.do(ctx, one); err != nil {
			return p.waiting(ctx, one, err)
		}
	}
	return nil
}

// confirm fails Damaged unless the rows themselves, whatever the indexes say, have
// the approvals of a purge: what it does cannot be undone.
func (p *Purger) confirm(ctx context.Context, one Purge) error {
	if err := p.DB.CheckTables(ctx, "purge", "purge_approval"); err != nil {
		return err
	}
	var requester string
	approvers := map[string]bool{}
	err := p.DB.Scan(ctx, "purge", "requester", "policy", []int64{one.Policy}, func(row store.Scanner) error { return row.Scan(&requester) })
	if err == nil {
		err = p.DB.Scan(ctx, "purge_approval", "approver", "policy", []int64{one.Policy}, func(row store.Scanner) error {
			var approver string
			err := row.Scan(&approver)
			approvers[approver] = true
			return err
		})
	}
	if err != nil {
		return err
	}
	delete(approvers, requester)
	if requester == "" || len(approvers) < approvals {
		err = fail.New(api.Damaged, "purge policy %d: an index of the database says otherwise than its rows, which have %d approvals", one.Policy, len(approvers)).
			WithHint("docs/damage.md says how to rebuild an index from the rows")
		p.Logger.ErrorContext(ctx, "the database contradicts itself; nothing is deleted", "error", err)
		noted := p.DB.InTx(context.WithoutCancel(ctx), func(tx *store.Tx) error {
			return audit.Notice(ctx, tx, audit.Entry{Tenant: one.Tenant, Outcome: string(api.Damaged), Detail: err.Error()}, p.Now())
		})
		return errors.Join(err, noted)
	}
	return nil
}

// waiting notes why a purge does not go on.
func (p *Purger) waiting(ctx context.Context, one Purge, why error) error {
	_, detail, _ := fail.Public(why)
	err := lease.InTx(context.WithoutCancel(ctx), p.DB, func(tx *store.Tx) error { return setMessage(ctx, tx, one, "waits: "+detail) })
	if err != nil {
		return fmt.Errorf("%w; and this could not be noted: %w", why, err)
	}
	return why
}

// deletePolicy is the first step: from its commit on, no key of the policy is
// opened for anybody. The lock on the policy has waited for all that was
// putting something under it.
func (p *Purger) deletePolicy(ctx context.Context, one Purge) error {
	fault.Point("purge.before-delete")
	err := lease.InTx(ctx, p.DB, func(tx *store.Tx) error {
		if err := p.Policies.Delete(ctx, tx, one.Tenant, one.Policy); err != nil {
			return err
		}
		now := p.Now()
		if err := roll.End(ctx, tx, one.Tenant, one.Policy, "the policy was purged", now); err != nil {
			return err
		}
		if err := done(ctx, tx, one, "policy_deleted", now); err != nil {
			return err
		}
		return p.note(ctx, tx, one, "deleted policy %d", one.Policy)
	})
	if err == nil {
		fault.Point("purge.after-delete")
	}
	return err
}

// dropKeys has this process forget the policy's keys. It is done each time: the
// process may have learned only later that the policy is deleted.
func (p *Purger) dropKeys(ctx context.Context, one Purge) error {
	return p.Policies.ForgetKeys(ctx, one.Tenant, one.Policy)
}

// batchPages is how many key pages' containers one transaction marks.
const batchPages = 32

// markContainers is the second step: whatever stands under a key of the policy
// is marked. It goes over all pages until nothing unmarked was met, because
// somebody may merge pages meanwhile.
func (p *Purger) markContainers(ctx context.Context, one Purge) error {
	var under []keypage.Parent
	err := p.DB.View(ctx, func(tx *store.Tx) error {
		keys, err := p.Policies.Keys(ctx, tx, one.Tenant, one.Policy)
		for _, k := range keys {
			under = append(under, keypage.Parent{ID: k.ID, Generation: k.Generation})
		}
		return err
	})
	if err != nil {
		return err
	}
	for found := true; found; {
		found = false
		for after, more := int64(0), true; more; {
			var last, marked int64
			err := lease.InTx(ctx, p.DB, func(tx *store.Tx) (err error) {
				if last, marked, err = p.Containers.MarkPurged(ctx, tx, one.Tenant, under, policy.Classes, after, batchPages, p.Now()); err != nil {
					return err
				}
				return addMarked(ctx, tx, one, marked)
			})
			if err != nil {
				return err
			}
			after, more = last, last != 0
			found = found || marked > 0
			fault.Point("purge.after-mark")
		}
	}
	return lease.InTx(ctx, p.DB, func(tx *store.Tx) error {
		if err := done(ctx, tx, one, "containers_marked", p.Now()); err != nil {
			return err
		}
		return p.note(ctx, tx, one, "marked the containers of policy %d", one.Policy)
	})
}

// destroyKey is the last step: the availability key is destroyed, and the wraps
// of the policy's keys are erased. What they protected opens no more.
func (p *Purger) destroyKey(ctx context.Context, one Purge) error {
	fault.Point("purge.before-destroy")
	if err := p.Policies.DestroyAvailabilityKey(ctx, one.Tenant, one.Policy); err != nil {
		return err
	}
	fault.Point("purge.after-destroy")
	err := lease.InTx(ctx, p.DB, func(tx *store.Tx) error {
		if err := p.Policies.EraseAll(ctx, tx, one.Tenant, one.Policy); err != nil {
			return err
		}
		if err := done(ctx, tx, one, "key_destroyed", p.Now()); err != nil {
			return err
		}
		return p.note(ctx, tx, one, "destroyed the availability key of policy %d and erased its wraps", one.Policy)
	})
	if err != nil {
		return err
	}
	fault.Point("purge.after-erase")
	if err := p.DB.TruncateLog(ctx); err != nil {
		p.Logger.WarnContext(ctx, "erased wraps may be in the write-ahead log until it is emptied, at the latest when keyroll stops", "error", err)
	}
	return nil
}

// note writes a step into the audit log.
func (p *Purger) note(ctx context.Context, tx *store.Tx, one Purge, format string, args ...any) error {
	return p.Audit.Append(ctx, tx, audit.Entry{ID: store.NewID(), Tenant: one.Tenant, Outcome: audit.Done, Detail: fmt.Sprintf(format, args...)})
}

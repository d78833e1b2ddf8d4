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
	"keyroll/internal/retry"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// auditOperation is the operation of purges in the audit log.
const auditOperation = "Purge"

const (
	// longestWait bounds the time between two attempts of a purge that is blocked.
	longestWait = 30 * time.Second
	// lookEvery is how often a node looks for purges that were approved on another
	// node, or left unfinished by a node that died.
	lookEvery = 2 * time.Second
)

// Run carries out approved purges until ctx is done, including those that an earlier
// process has begun. A purge that is blocked, for example because the store of
// availability keys is unavailable, records the reason and is tried again.
func (p *Purger) Run(ctx context.Context) {
	loop := retry.Loop{First: time.Second, Longest: longestWait, Wake: p.wake}
	loop.Run(ctx, func(ctx context.Context) retry.Next {
		var waits bool
		_, err := p.config.Leases.Hold(ctx, "purge", func(ctx context.Context) error {
			waits = p.workAll(ctx)
			return nil
		})
		if err != nil && ctx.Err() == nil {
			p.config.Logger.ErrorContext(ctx, "approved purges could not be processed", "error", err)
		}
		switch {
		case waits:
			return retry.Blocked(0)
		case p.config.Leases != nil:
			return retry.After(lookEvery)
		}
		return retry.Idle()
	})
}

// workAll works on every approved purge, and reports whether one must be tried again.
func (p *Purger) workAll(ctx context.Context) (waits bool) {
	var list []Purge
	err := p.config.DB.View(ctx, func(tx *store.Tx) (err error) {
		list, err = selectPurges(ctx, tx, whereApproved, Approvals)
		return err
	})
	if err != nil && ctx.Err() == nil {
		p.config.Logger.ErrorContext(ctx, "approved purges could not be listed", "error", err)
		return true
	}
	for _, one := range list {
		if err := p.Work(ctx, one); err != nil && ctx.Err() == nil {
			p.config.Logger.WarnContext(ctx, "a purge is blocked and will be tried again", "policy", one.Policy, "error", err)
			waits = true
		}
	}
	return waits
}

// Work carries out an approved purge, or records why it is blocked.
func (p *Purger) Work(ctx context.Context, one Purge) error {
	ctx = audit.WithOrigin(ctx, audit.Origin{Operation: auditOperation, Request: fmt.Sprintf("purge %d", one.ID), Principal: one.Requester, System: true})
	if err := p.confirm(ctx, one); err != nil {
		return p.recordWaiting(ctx, one, err)
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
			return p.recordWaiting(ctx, one, err)
		}
	}
	return nil
}

// confirm fails Damaged unless the rows themselves, and not only the indexes, contain
// the approvals of a purge: a purge cannot be undone.
func (p *Purger) confirm(ctx context.Context, one Purge) error {
	if err := p.config.DB.CheckTables(ctx, "purge", "purge_approval"); err != nil {
		return err
	}
	var requester string
	approvers := map[string]bool{}
	err := p.config.DB.Scan(ctx, store.ScanQuery{Table: "purge", Columns: "requester", Column: "policy", IDs: []int64{one.Policy}}, func(row store.Scanner) error { return row.Scan(&requester) })
	if err == nil {
		err = p.config.DB.Scan(ctx, store.ScanQuery{Table: "purge_approval", Columns: "approver", Column: "policy", IDs: []int64{one.Policy}}, func(row store.Scanner) error {
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
	if requester == "" || len(approvers) < Approvals {
		err = fail.New(api.Damaged, "purge policy %d: an index of the database contradicts its rows, which have %d approvals", one.Policy, len(approvers)).
			WithHint("docs/damage.md says how to rebuild an index from the rows")
		p.config.Logger.ErrorContext(ctx, "the database contradicts itself; nothing is deleted", "error", err)
		noted := p.config.DB.InTx(context.WithoutCancel(ctx), func(tx *store.Tx) error {
			return audit.Notice(ctx, tx, audit.Entry{Tenant: one.Tenant, Outcome: string(api.Damaged), Detail: err.Error()}, p.config.Now())
		})
		return errors.Join(err, noted)
	}
	return nil
}

// recordWaiting records why a purge is blocked.
func (p *Purger) recordWaiting(ctx context.Context, one Purge, why error) error {
	_, detail, _ := fail.Public(why)
	err := lease.InTx(context.WithoutCancel(ctx), p.config.DB, func(tx *store.Tx) error { return setMessage(ctx, tx, one, "waits: "+detail) })
	if err != nil {
		return fmt.Errorf("%w; and this could not be recorded: %w", why, err)
	}
	return why
}

// deletePolicy is the first step: after its commit, no key of the policy is opened
// any more. Its lock on the policy has waited for all transactions that put keys
// under the policy.
func (p *Purger) deletePolicy(ctx context.Context, one Purge) error {
	fault.Point("purge.before-delete")
	err := lease.InTx(ctx, p.config.DB, func(tx *store.Tx) error {
		if err := p.config.Policies.Delete(ctx, tx, one.Tenant, one.Policy); err != nil {
			return err
		}
		now := p.config.Now()
		if err := roll.End(ctx, tx, roll.Ending{Tenant: one.Tenant, Policy: one.Policy, Message: "the policy was purged", At: now}); err != nil {
			return err
		}
		if err := setStepDone(ctx, tx, one, "policy_deleted", now); err != nil {
			return err
		}
		return p.appendAudit(ctx, tx, one, "deleted policy %d", one.Policy)
	})
	if err == nil {
		fault.Point("purge.after-delete")
	}
	return err
}

// dropKeys removes the policy's keys from the memory of this process. It is done at
// each attempt: another process may have deleted the policy.
func (p *Purger) dropKeys(ctx context.Context, one Purge) error {
	return p.config.Policies.ForgetKeys(ctx, one.Tenant, one.Policy)
}

// batchPages is how many key pages' containers one transaction marks.
const batchPages = 32

// markContainers is the second step: it marks every container under a key of the
// policy. It repeats the pass over all pages until it finds no unmarked container,
// because a fold may merge pages in the meantime.
func (p *Purger) markContainers(ctx context.Context, one Purge) error {
	var under []keypage.Parent
	err := p.config.DB.View(ctx, func(tx *store.Tx) error {
		keys, err := p.config.Policies.Keys(ctx, tx, one.Tenant, one.Policy)
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
			var pages []keypage.Row
			var marked int64
			err := lease.InTx(ctx, p.config.DB, func(tx *store.Tx) (err error) {
				if pages, err = keypage.Under(ctx, tx, keypage.Set{Tenant: one.Tenant, Parents: under, Classes: policy.Classes}, after, batchPages); err != nil {
					return err
				}
				if marked, err = p.config.Containers.MarkPurged(ctx, tx, pages, p.config.Now()); err != nil {
					return err
				}
				return addMarked(ctx, tx, one, marked)
			})
			if err != nil {
				return err
			}
			if more = len(pages) > 0; more {
				after = pages[len(pages)-1].ID
			}
			found = found || marked > 0
			fault.Point("purge.after-mark")
		}
	}
	return lease.InTx(ctx, p.config.DB, func(tx *store.Tx) error {
		if err := setStepDone(ctx, tx, one, "containers_marked", p.config.Now()); err != nil {
			return err
		}
		return p.appendAudit(ctx, tx, one, "marked the containers of policy %d", one.Policy)
	})
}

// destroyKey is the last step: it destroys the availability key and erases the wraps
// of the policy's keys. The data under them can no longer be decrypted.
func (p *Purger) destroyKey(ctx context.Context, one Purge) error {
	fault.Point("purge.before-destroy")
	if err := p.config.Policies.DestroyAvailabilityKey(ctx, one.Tenant, one.Policy); err != nil {
		return err
	}
	fault.Point("purge.after-destroy")
	err := lease.InTx(ctx, p.config.DB, func(tx *store.Tx) error {
		if err := p.config.Policies.EraseAll(ctx, tx, one.Tenant, one.Policy); err != nil {
			return err
		}
		if err := setStepDone(ctx, tx, one, "key_destroyed", p.config.Now()); err != nil {
			return err
		}
		return p.appendAudit(ctx, tx, one, "destroyed the availability key of policy %d and erased its wraps", one.Policy)
	})
	if err != nil {
		return err
	}
	fault.Point("purge.after-erase")
	if err := p.config.DB.TruncateLog(ctx); err != nil {
		p.config.Logger.WarnContext(ctx, "erased wraps may be in the write-ahead log until it is emptied, at the latest when keyroll stops", "error", err)
	}
	return nil
}

// appendAudit writes an audit entry for a step.
func (p *Purger) appendAudit(ctx context.Context, tx *store.Tx, one Purge, format string, args ...any) error {
	return p.config.Audit.Append(ctx, tx, audit.Entry{ID: store.NewID(), Tenant: one.Tenant, Outcome: audit.Done, Detail: fmt.Sprintf(format, args...)})
}

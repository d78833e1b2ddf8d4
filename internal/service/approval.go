package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/approval"
	"keyroll/internal/audit"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/purge"
	"keyroll/internal/store"
)

// act is an operation that a second person may have to approve. run decodes its input and does
// it; nil for a purge, which package purge does.
type act struct {
	words string // what it does to its target
	run   func(ctx context.Context, c *call, input []byte) error
}

// acts are the operations that may need a second person, by name. They move what a policy
// protects to other keys, or destroy it.
var acts = map[string]act{
	api.AssignMailbox.Name: {"assign a policy, or none, to mailbox %s, although both its keys are refused", approved((*call).assignMailbox)},
	api.AssignPolicy.Name:  {"assign policy %s to the tenant, although both keys of the one before it are refused", approved((*call).assignPolicy)},
	api.LeavePolicy.Name:   {"leave policy %s, although both its keys are refused", approved((*call).leavePolicy)},
	api.RecoverPolicy.Name: {"put policy %s, whose keys are lost, into recovery mode", approved((*call).recoverPolicy)},
	api.RequestPurge.Name:  {"purge policy %s and all that it protects", nil},
}

// approved returns how an operation is run with the input that was stored for it.
func approved[In, Out any](f func(c *call, ctx context.Context, in In) (Out, error)) func(context.Context, *call, []byte) error {
	return func(ctx context.Context, c *call, input []byte) error {
		var in In
		if err := json.Unmarshal(input, &in); err != nil {
			return err
		}
		_, err := f(c, ctx, in)
		return err
	}
}

// needsApproval reports whether a second person has to approve an act, because the policy key
// that it replaces is revoked. In a tenant without approvers no act waits.
func (c *call) needsApproval(ctx context.Context, op api.Meta, replaced int64) (bool, error) {
	if c.request != nil || c.DryRun {
		return false, nil
	}
	approvers, err := c.HasApprovers(ctx, c.Call)
	if err != nil {
		return false, err
	}
	revoked, err := c.policies.Revoked(ctx, c.Tenant, replaced, approvers)
	if revoked && !approvers {
		c.logger.WarnContext(ctx, "the tenant has no approvers: an act that undoes a revocation is done at once", "operation", op.Name, "principal", c.Principal.ID, "tenant", c.Tenant)
	}
	return revoked && approvers, err
}

// words says what an operation does to its target.
func words(operation, target string) string {
	return fmt.Sprintf(acts[operation].words, fmt.Sprintf("%q", target))
}

// RunApproved does an approved act as its requester, and records how it ended in the same
// transaction. A failure means that it is to be tried again.
func (s *Service) RunApproved(ctx context.Context, r approval.Request) error {
	a, known := acts[r.Operation]
	if !known || a.run == nil {
		return fail.New(api.Damaged, "request %d is to do %q, which needs no approval", r.ID, r.Operation)
	}
	d, err := s.containers.Directory(ctx, r.Tenant)
	if err != nil {
		return err
	}
	var p access.Principal
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		p, err = s.access.Principal(ctx, tx, r.Tenant, r.Requester)
		return err
	})
	if fail.Is(err, api.NotFound) {
		return s.failRequest(ctx, r, d, fail.New(api.Forbidden, "the requester no longer exists"))
	}
	if err != nil {
		return err
	}
	target, err := d.Open(r.ID, r.Target)
	if err != nil {
		return s.failRequest(ctx, r, d, err)
	}
	input, err := d.Open(r.ID, r.Input)
	if err != nil {
		return s.failRequest(ctx, r, d, err)
	}
	ctx = access.WithPrincipal(audit.WithOrigin(ctx, audit.Origin{Request: fmt.Sprintf("approval %d", r.ID)}), p)
	_, err = do(ctx, s, operationOf(r.Operation), target, func(ctx context.Context, c *call) (none struct{}, err error) {
		c.request = &r
		c.Also = func(ctx context.Context, tx *store.Tx) error { return approval.Done(ctx, tx, r, s.now()) }
		return none, a.run(ctx, c, []byte(input))
	})
	switch {
	case err == nil, errors.Is(err, store.ErrOutdated):
		return nil
	case fail.Is(err, api.Unavailable), fail.Is(err, api.VaultUnavailable), fail.Is(err, api.Internal), ctx.Err() != nil:
		return err
	}
	return s.failRequest(ctx, r, d, err)
}

// failRequest records that an approved act was refused.
func (s *Service) failRequest(ctx context.Context, r approval.Request, d *container.Directory, why error) error {
	_, detail, _ := fail.Public(why)
	err := s.db.InTx(context.WithoutCancel(ctx), func(tx *store.Tx) error { return approval.Fail(ctx, tx, r, d.Seal(r.ID, detail), s.now()) })
	if errors.Is(err, store.ErrOutdated) { // it was done, by another node
		return nil
	}
	return err
}

// ExpireApproval ends a request whose time is over.
func (s *Service) ExpireApproval(ctx context.Context, r approval.Request) error {
	return s.db.InTx(ctx, func(tx *store.Tx) error {
		expired, err := approval.Expire(ctx, tx, r, s.now())
		if err != nil || !expired {
			return err
		}
		if err := s.requestEnded(ctx, tx, r); err != nil {
			return err
		}
		return audit.Notice(ctx, tx, audit.Entry{Tenant: r.Tenant, Outcome: audit.Done, Detail: fmt.Sprintf("request %d, %s of principal %s, expired", r.ID, r.Operation, r.Requester)}, s.now())
	})
}

// operationOf returns the description of an operation.
func operationOf(name string) api.Meta {
	for _, op := range api.Operations() {
		if op.Name == name {
			return op
		}
	}
	return api.Meta{Name: name}
}

// requestEnded removes the purge of a request that has ended without its approvals.
func (s *Service) requestEnded(ctx context.Context, tx *store.Tx, r approval.Request) error {
	if r.Operation != api.RequestPurge.Name {
		return nil
	}
	policy, err := purge.Withdraw(ctx, tx, r.Tenant, r.ID)
	if err != nil {
		return err
	}
	return s.policies.WithdrawPurge(ctx, tx, r.Tenant, policy)
}

// purgeApproved records an approval of a purge with the purge, which package purge carries out.
func (s *Service) purgeApproved(ctx context.Context, tx *store.Tx, r approval.Request, by approval.Decision) (approval.Request, error) {
	if r.Operation != api.RequestPurge.Name {
		return r, nil
	}
	p, err := purge.ByID(ctx, tx, r.Tenant, r.ID)
	if err != nil {
		return r, err
	}
	if _, err := purge.Approve(ctx, tx, r.Tenant, p.Policy, purge.Approval{Approver: by.Approver, At: by.At}); err != nil {
		return r, err
	}
	if r.State == api.ApprovalApproved {
		if err := approval.Done(ctx, tx, r, by.At); err != nil {
			return r, err
		}
		r.State = api.ApprovalDone
	}
	return r, nil
}

// woken is called after a change of a request.
func (s *Service) woken() {
	s.approvals.Wake()
	s.purger.Wake()
}

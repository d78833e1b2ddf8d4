package principals

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/approval"
	"keyroll/internal/fail"
	"keyroll/internal/operation"
	"keyroll/internal/store"
)

// approvalLifetime is how long a request waits for its approvals.
const approvalLifetime = 30 * 24 * time.Hour

// Acts are what requests for approval are for.
type Acts struct {
	// Words says what an operation does to its target.
	Words func(operation, target string) string
	// Approved is called in the transaction of an approval, and may end the request.
	Approved func(ctx context.Context, tx *store.Tx, r approval.Request, by approval.Decision) (approval.Request, error)
	// Ended is called in the transaction in which a request is rejected or withdrawn.
	Ended func(ctx context.Context, tx *store.Tx, r approval.Request) error
	// Wake is called after a change of a request.
	Wake   func()
	Logger *slog.Logger
}

// HasApprovers reports whether the caller's tenant has an approver who has enrolled.
func (p *Principals) HasApprovers(ctx context.Context, c *operation.Call) (found bool, err error) {
	err = p.frame.DB.View(ctx, func(tx *store.Tx) error {
		all, err := p.enrolled(ctx, tx, c.Tenant)
		found = len(all) > 0
		return err
	})
	return found, err
}

// enrolled returns the approvers of a tenant who have enrolled.
func (p *Principals) enrolled(ctx context.Context, tx *store.Tx, tenant int64) (list []access.Principal, err error) {
	all, err := p.access.Principals(ctx, tx, tenant)
	for _, who := range all {
		if who.Kind == access.ByEnrolment && who.HasAny(api.Approver) {
			list = append(list, who)
		}
	}
	return list, err
}

// NewRequest returns a request for the approval of an operation, with an id.
func (p *Principals) NewRequest(c *operation.Call, id int64, op api.Meta, in any) (r approval.Request, err error) {
	input, err := json.Marshal(in)
	if err != nil {
		return r, err
	}
	now := p.now()
	return approval.Request{ID: id, Tenant: c.Tenant, Operation: op.Name, Target: c.Texts.Seal(id, c.Target), Input: c.Texts.Seal(id, string(input)), Requester: c.Principal.ID,
		Requested: now, Expires: now.Add(approvalLifetime), Needed: 1}, nil
}

// InsertRequest stores a request with the people behind its requester. It warns if the tenant
// has too few approvers whose approval counts.
func (p *Principals) InsertRequest(ctx context.Context, tx *store.Tx, r approval.Request) (warnings []string, err error) {
	if r.People, err = p.access.Behind(ctx, tx, r.Tenant, r.Requester); err != nil {
		return nil, err
	}
	if err := approval.Insert(ctx, tx, r); err != nil {
		return nil, err
	}
	all, err := p.enrolled(ctx, tx, r.Tenant)
	if err != nil {
		return nil, err
	}
	eligible := 0
	for _, who := range all {
		by, err := p.approver(ctx, tx, who)
		if err != nil {
			return nil, err
		}
		if r.CheckApprover(by) == nil {
			eligible++
		}
	}
	if eligible < r.Needed {
		warnings = append(warnings, fmt.Sprintf("the request needs %d approvals, and the tenant has %d approvers who may give one: those who enrolled before it, with a code that the requester did not issue", r.Needed, eligible))
	}
	return warnings, nil
}

// RequestApproval stores an act until it is approved, and returns the id of the request.
func (p *Principals) RequestApproval(ctx context.Context, c *operation.Call, op api.Meta, in any) (string, error) {
	r, err := p.NewRequest(c, store.NewID(), op, in)
	if err != nil {
		return "", err
	}
	err = c.Change(ctx, func(tx *store.Tx) (string, error) {
		_, err := p.InsertRequest(ctx, tx, r)
		return fmt.Sprintf("request %d waits for approval", r.ID), err
	})
	if err != nil {
		return "", err
	}
	p.acts.Logger.WarnContext(ctx, "an act waits for an approver", "request", r.ID, "operation", op.Name, "principal", c.Principal.ID, "tenant", c.Tenant)
	return strconv.FormatInt(r.ID, 10), nil
}

// approver returns a principal as one who decides.
func (p *Principals) approver(ctx context.Context, tx *store.Tx, who access.Principal) (approval.Approver, error) {
	people, err := p.access.Behind(ctx, tx, who.Tenant, who.ID)
	a := approval.Approver{ID: who.ID, People: people}
	if who.Kind == access.ByEnrolment {
		a.Enrolled = who.Created
	}
	return a, err
}

// ListApprovals lists the requests of the tenant, the oldest first.
func (p *Principals) ListApprovals(ctx context.Context, in api.ListApprovalsInput) (api.List[api.Approval], error) {
	return operation.Do(ctx, p.frame, api.ListApprovals.Meta, "", func(ctx context.Context, c *operation.Call) (api.List[api.Approval], error) {
		return operation.ListPage(ctx, c, in.PageInput, func(tx *store.Tx, after int64, limit int) ([]operation.Row[api.Approval], error) {
			all, err := approval.List(ctx, tx, c.Tenant, approval.Page{After: after, Limit: limit, Pending: !in.All})
			if err != nil {
				return nil, err
			}
			names, err := p.names(ctx, tx, c.Tenant)
			return operation.RowsOf(all, func(r approval.Request) operation.Row[api.Approval] {
				item, err := p.showRequest(c, r, names)
				return operation.Row[api.Approval]{ID: r.ID, Item: item, Err: err}
			}), err
		})
	})
}

// ShowApproval shows a request.
func (p *Principals) ShowApproval(ctx context.Context, in api.ApprovalInput) (out api.Approval, err error) {
	return operation.Do(ctx, p.frame, api.ShowApproval.Meta, in.Approval, func(ctx context.Context, c *operation.Call) (api.Approval, error) {
		id, err := requestID(in)
		if err != nil {
			return out, err
		}
		return out, c.Read(ctx, func(tx *store.Tx) error {
			r, err := approval.Find(ctx, tx, c.Tenant, id)
			if err == nil {
				out, err = p.showIn(ctx, tx, c, r)
			}
			return err
		})
	})
}

func requestID(in api.ApprovalInput) (int64, error) {
	id, err := strconv.ParseInt(in.Approval, 10, 64)
	if err != nil || id < 1 {
		return 0, fail.New(api.InvalidArgument, "%.40q is not the id of a request", in.Approval).WithHint("keyroll approval list shows the requests")
	}
	return id, nil
}

// changeRequest runs an operation that changes a request.
func (p *Principals) changeRequest(ctx context.Context, op api.Meta, in api.ApprovalInput, f func(ctx context.Context, tx *store.Tx, c *operation.Call, id int64) (approval.Request, error)) (out api.Approval, err error) {
	return operation.Do(ctx, p.frame, op, in.Approval, func(ctx context.Context, c *operation.Call) (api.Approval, error) {
		id, err := requestID(in)
		if err != nil {
			return out, err
		}
		err = c.Change(ctx, func(tx *store.Tx) (string, error) {
			r, err := f(ctx, tx, c, id)
			if err == nil {
				out, err = p.showIn(ctx, tx, c, r)
			}
			return fmt.Sprintf("%s of principal %s is %s", r.Operation, r.Requester, r.State), err
		})
		p.acts.Wake()
		return out, err
	})
}

// ApproveAct approves a request.
func (p *Principals) ApproveAct(ctx context.Context, in api.ApprovalInput) (api.Approval, error) {
	return p.changeRequest(ctx, api.ApproveAct.Meta, in, func(ctx context.Context, tx *store.Tx, c *operation.Call, id int64) (approval.Request, error) {
		return p.Decide(ctx, tx, c, id, true)
	})
}

// RejectAct rejects a request.
func (p *Principals) RejectAct(ctx context.Context, in api.ApprovalInput) (api.Approval, error) {
	return p.changeRequest(ctx, api.RejectAct.Meta, in, func(ctx context.Context, tx *store.Tx, c *operation.Call, id int64) (approval.Request, error) {
		return p.Decide(ctx, tx, c, id, false)
	})
}

// WithdrawAct withdraws a request: its requester or any approver.
func (p *Principals) WithdrawAct(ctx context.Context, in api.ApprovalInput) (api.Approval, error) {
	return p.changeRequest(ctx, api.WithdrawAct.Meta, in, func(ctx context.Context, tx *store.Tx, c *operation.Call, id int64) (r approval.Request, err error) {
		if r, err = approval.Find(ctx, tx, c.Tenant, id); err != nil {
			return r, err
		}
		if r.Requester != c.Principal.ID && !c.Principal.HasAny(api.Approver) {
			return r, fail.New(api.Forbidden, "only the requester or an approver can withdraw a request")
		}
		if r, err = approval.Withdraw(ctx, tx, c.Tenant, id, p.now()); err != nil {
			return r, err
		}
		return r, p.acts.Ended(ctx, tx, r)
	})
}

// Decide records the caller's decision on a request.
func (p *Principals) Decide(ctx context.Context, tx *store.Tx, c *operation.Call, id int64, approves bool) (approval.Request, error) {
	by, err := p.approver(ctx, tx, c.Principal)
	if err != nil {
		return approval.Request{}, err
	}
	now := p.now()
	r, err := approval.Decide(ctx, tx, c.Tenant, id, approval.Choice{By: by, Approves: approves, At: now})
	switch {
	case err != nil:
		return r, err
	case approves:
		return p.acts.Approved(ctx, tx, r, approval.Decision{Approver: by.ID, At: now, Approves: true})
	}
	return r, p.acts.Ended(ctx, tx, r)
}

// names returns the names of all principals that a tenant has had.
func (p *Principals) names(ctx context.Context, tx *store.Tx, tenant int64) (map[uuid.UUID]string, error) {
	names := map[uuid.UUID]string{}
	all, err := p.access.AllPrincipals(ctx, tx, tenant)
	for _, who := range all {
		names[who.ID] = who.Name
	}
	return names, err
}

func (p *Principals) showIn(ctx context.Context, tx *store.Tx, c *operation.Call, r approval.Request) (out api.Approval, err error) {
	names, err := p.names(ctx, tx, c.Tenant)
	if err != nil {
		return out, err
	}
	return p.showRequest(c, r, names)
}

func (p *Principals) showRequest(c *operation.Call, r approval.Request, names map[uuid.UUID]string) (out api.Approval, err error) {
	out = api.Approval{ID: strconv.FormatInt(r.ID, 10), Operation: r.Operation, State: r.State, Requester: names[r.Requester], Requested: r.Requested.UTC(), Expires: r.Expires.UTC(),
		Needed: r.Needed, Decisions: []api.ApprovalChoice{}, Ended: operation.TimeOrNil(r.Ended)}
	if out.Target, err = c.Texts.Open(r.ID, r.Target); err != nil {
		return out, err
	}
	out.Act = p.acts.Words(r.Operation, out.Target)
	if len(r.Outcome) > 0 {
		if out.Outcome, err = c.Texts.Open(r.ID, r.Outcome); err != nil {
			return out, err
		}
	}
	for _, d := range r.Decisions {
		out.Decisions = append(out.Decisions, api.ApprovalChoice{Approver: names[d.Approver], Approves: d.Approves, At: d.At.UTC()})
	}
	return out, nil
}

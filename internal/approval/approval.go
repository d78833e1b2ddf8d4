// Package approval keeps the acts that wait for a second person.
//
// An act is stored as a request before any of it is done. Approvers, who are neither the
// requester nor anyone with a hand in the requester's credential, approve or reject it. With
// enough approvals it is approved, and the Runner has it done once. Until then it can be
// withdrawn, and it expires. The package does no act itself, and reads no sealed text. Start
// reading at Decide.
package approval

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Request is an act that waits, or has waited, for a second person.
type Request struct {
	ID, Tenant int64
	Operation  string // of the api package
	Target     []byte // sealed for ID, like Input and Outcome
	Input      []byte
	Requester  uuid.UUID
	// People are the requester and everyone who has seen its secret.
	People    []uuid.UUID
	Requested time.Time
	Expires   time.Time
	Needed    int // approvals
	State     api.ApprovalState
	Ended     time.Time // zero: it has not
	Outcome   []byte    // why it failed
	Decisions []Decision
}

// Decision is what one approver said of a request.
type Decision struct {
	Approver uuid.UUID
	At       time.Time
	Approves bool
}

// approvals counts the decisions that approve.
func (r Request) approvals() (n int) {
	for _, d := range r.Decisions {
		if d.Approves {
			n++
		}
	}
	return n
}

// Approver is a person who decides.
type Approver struct {
	ID uuid.UUID
	// Enrolled is when the approver got a credential that no other person has seen; zero: it has
	// none.
	Enrolled time.Time
	// People are the approver and everyone who issued the credentials behind its own.
	People []uuid.UUID
}

// Find returns a request of a tenant; fail NotFound.
func Find(ctx context.Context, tx *store.Tx, tenant, id int64) (Request, error) {
	list, err := selectRequests(ctx, tx, `tenant = ?1 AND id = ?2`, tenant, id)
	if err == nil && len(list) == 0 {
		err = fail.New(api.NotFound, "no request has the id %d", id).WithHint("keyroll approval list shows the requests")
	}
	if err != nil {
		return Request{}, err
	}
	return list[0], nil
}

// Page selects the first Limit requests with an id above After. Pending leaves out those that
// wait for no decision.
type Page struct {
	After   int64
	Limit   int
	Pending bool
}

// List returns a page of the requests of a tenant, the oldest first.
func List(ctx context.Context, tx *store.Tx, tenant int64, p Page) ([]Request, error) {
	if p.Pending {
		return selectRequests(ctx, tx, `tenant = ?1 AND id > ?2 AND state = ?4 ORDER BY id LIMIT ?3`, tenant, p.After, p.Limit, api.ApprovalPending)
	}
	return selectRequests(ctx, tx, `tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3`, tenant, p.After, p.Limit)
}

// Insert stores a new request, with decisions that were given before.
func Insert(ctx context.Context, tx *store.Tx, r Request) error {
	r.State = api.ApprovalPending
	if err := insert(ctx, tx, r); err != nil {
		return fmt.Errorf("request an approval: %w", err)
	}
	for _, d := range r.Decisions {
		if err := insertDecision(ctx, tx, r, d); err != nil {
			return fmt.Errorf("request an approval: %w", err)
		}
	}
	return nil
}

// Choice is a decision with what has to be known of the approver.
type Choice struct {
	By       Approver
	Approves bool
	At       time.Time
}

// Decide records the decision of an approver on a pending request, and returns the request
// afterwards. One rejection ends it.
func Decide(ctx context.Context, tx *store.Tx, tenant, id int64, d Choice) (Request, error) {
	r, err := lockPending(ctx, tx, tenant, id, d.At)
	if err != nil {
		return r, err
	}
	if err := r.check(d.By, d.Approves); err != nil {
		return r, err
	}
	if err := insertDecision(ctx, tx, r, Decision{d.By.ID, d.At, d.Approves}); err != nil {
		return r, fmt.Errorf("decide on request %d: %w", id, err)
	}
	if r, err = Find(ctx, tx, tenant, id); err != nil {
		return r, err
	}
	switch {
	case !d.Approves:
		return end(ctx, tx, r, api.ApprovalRejected, d.At)
	case r.approvals() >= r.Needed:
		return setState(ctx, tx, r, api.ApprovalApproved)
	}
	return r, nil
}

// CheckApprover refuses an approver whose approval of the request would not count.
func (r Request) CheckApprover(by Approver) error { return r.check(by, true) }

// check refuses a decision that does not count. A rejection needs less: it only keeps things
// as they are.
func (r Request) check(by Approver, approves bool) error {
	if slices.ContainsFunc(r.Decisions, func(d Decision) bool { return d.Approver == by.ID }) {
		return fail.New(api.Conflict, "this approver has already decided on the request; another approver is required")
	}
	if by.ID == r.Requester {
		return fail.New(api.Forbidden, "the requester cannot approve the request").WithHint("it can be withdrawn: keyroll approval withdraw %d", r.ID)
	}
	if by.Enrolled.IsZero() {
		return fail.New(api.Forbidden, "this approver has not enrolled with a one-time code").
			WithHint("remove it, register it again (keyroll approval approver add), and enrol: keyroll approval approver enrol")
	}
	if !approves {
		return nil
	}
	if !by.Enrolled.Before(r.Requested) {
		return fail.New(api.Forbidden, "this approver enrolled at %s, after the request; only one who had enrolled before may approve it", by.Enrolled.UTC().Format(time.RFC3339)).
			WithHint("withdraw the request, and make it again: keyroll approval withdraw %d", r.ID)
	}
	for _, p := range by.People {
		if slices.Contains(r.People, p) {
			return fail.New(api.Forbidden, "the approver's code and the requester's token were issued by the same principal, %s", p).
				WithHint("an approver counts if another admin or the operator has issued its code")
		}
	}
	return nil
}

// Withdraw ends a pending request without doing it.
func Withdraw(ctx context.Context, tx *store.Tx, tenant, id int64, now time.Time) (Request, error) {
	r, err := lockPending(ctx, tx, tenant, id, now)
	if err != nil {
		return r, err
	}
	return end(ctx, tx, r, api.ApprovalWithdrawn, now)
}

// Done ends an approved request in the transaction of its act. It fails with
// store.ErrOutdated if another transaction has ended it.
func Done(ctx context.Context, tx *store.Tx, r Request, now time.Time) error {
	_, err := end(ctx, tx, r, api.ApprovalDone, now)
	return err
}

// Fail ends an approved request whose act was refused, for a reason that is sealed.
func Fail(ctx context.Context, tx *store.Tx, r Request, reason []byte, now time.Time) error {
	r.Outcome = reason
	_, err := end(ctx, tx, r, api.ApprovalFailed, now)
	return err
}

// Expire ends the pending request if its time is over, and reports whether it did.
func Expire(ctx context.Context, tx *store.Tx, r Request, now time.Time) (bool, error) {
	if err := tx.Lock(ctx, r.ID, true); err != nil {
		return false, err
	}
	r, err := Find(ctx, tx, r.Tenant, r.ID)
	if err != nil || r.State != api.ApprovalPending || now.Before(r.Expires) {
		return false, err
	}
	_, err = end(ctx, tx, r, api.ApprovalExpired, now)
	return err == nil, err
}

// lockPending returns a request that may be decided on, under its lock.
func lockPending(ctx context.Context, tx *store.Tx, tenant, id int64, now time.Time) (Request, error) {
	if err := tx.Lock(ctx, id, true); err != nil {
		return Request{}, err
	}
	r, err := Find(ctx, tx, tenant, id)
	switch {
	case err != nil:
		return r, err
	case r.State != api.ApprovalPending:
		return r, fail.New(api.Conflict, "the request is %s", r.State)
	case !now.Before(r.Expires):
		return r, fail.New(api.Conflict, "the request expired at %s", r.Expires.UTC().Format(time.RFC3339)).WithHint("make it again")
	}
	return r, nil
}

package approval

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/store"
)

const columns = `id, tenant, operation, target, input, requester, people, requested, expires, needed, state, ended, outcome`

func insert(ctx context.Context, tx *store.Tx, r Request) error {
	people := make([]string, len(r.People))
	for i, p := range r.People {
		people[i] = p.String()
	}
	_, err := tx.Exec(ctx, `INSERT INTO approval_request (`+columns+`) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, ?12)`,
		r.ID, r.Tenant, r.Operation, r.Target, r.Input, r.Requester.String(), strings.Join(people, " "), r.Requested.UnixMilli(), r.Expires.UnixMilli(), r.Needed, r.State, []byte{})
	return err
}

func insertDecision(ctx context.Context, tx *store.Tx, r Request, d Decision) error {
	approves := 0
	if d.Approves {
		approves = 1
	}
	_, err := tx.Exec(ctx, `INSERT INTO approval_decision (request, approver, tenant, approves, at) VALUES (?1, ?2, ?3, ?4, ?5)`,
		r.ID, d.Approver.String(), r.Tenant, approves, d.At.UnixMilli())
	return err
}

// end records the last state of a request.
func end(ctx context.Context, tx *store.Tx, r Request, state api.ApprovalState, now time.Time) (Request, error) {
	r.Ended = now
	return setState(ctx, tx, r, state)
}

// setState changes the state of a request whose row has the state of r.
func setState(ctx context.Context, tx *store.Tx, r Request, state api.ApprovalState) (Request, error) {
	if r.Outcome == nil {
		r.Outcome = []byte{}
	}
	n, err := tx.Exec(ctx, `UPDATE approval_request SET state = ?4, ended = ?5, outcome = ?6 WHERE tenant = ?1 AND id = ?2 AND state = ?3`,
		r.Tenant, r.ID, r.State, state, store.MilliOrZero(r.Ended), r.Outcome)
	if err != nil {
		return r, fmt.Errorf("change request %d from %s to %s: %w", r.ID, r.State, state, err)
	}
	if n != 1 {
		return r, store.ErrOutdated
	}
	r.State = state
	return r, nil
}

// selectRequests returns the requests that where selects, with their decisions, in id order:
// with one query.
func selectRequests(ctx context.Context, tx *store.Tx, where string, args ...any) ([]Request, error) {
	rows, err := store.Collect(ctx, tx, scanRequest, `SELECT r.id, r.tenant, r.operation, r.target, r.input, r.requester, r.people, r.requested, r.expires, r.needed, r.state, r.ended, r.outcome,
		COALESCE(d.approver, ''), COALESCE(d.approves, 0), COALESCE(d.at, 0)
		FROM (SELECT `+columns+` FROM approval_request WHERE `+where+`) r
		LEFT JOIN approval_decision d ON d.request = r.id AND d.tenant = r.tenant
		ORDER BY r.id, d.at, d.approver`, args...)
	if err != nil {
		return nil, fmt.Errorf("read requests: %w", err)
	}
	var list []Request
	for _, r := range rows {
		if last := len(list) - 1; last >= 0 && list[last].ID == r.ID {
			list[last].Decisions = append(list[last].Decisions, r.Decisions...)
		} else {
			list = append(list, r)
		}
	}
	return list, nil
}

// scanRequest reads a request with one of its decisions, if it has any.
func scanRequest(row store.Scanner) (r Request, err error) {
	var requester, people, approver string
	var requested, expires, ended, approves, at int64
	err = row.Scan(&r.ID, &r.Tenant, &r.Operation, &r.Target, &r.Input, &requester, &people, &requested, &expires, &r.Needed, &r.State, &ended, &r.Outcome, &approver, &approves, &at)
	if err != nil {
		return r, err
	}
	r.Requested, r.Expires, r.Ended = time.UnixMilli(requested), time.UnixMilli(expires), store.TimeOrZero(ended)
	if r.Requester, err = uuid.Parse(requester); err != nil {
		return r, err
	}
	for _, text := range strings.Fields(people) {
		p, err := uuid.Parse(text)
		if err != nil {
			return r, err
		}
		r.People = append(r.People, p)
	}
	if approver == "" {
		return r, nil
	}
	d := Decision{At: time.UnixMilli(at), Approves: approves == 1}
	d.Approver, err = uuid.Parse(approver)
	r.Decisions = []Decision{d}
	return r, err
}

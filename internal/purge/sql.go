package purge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"keyroll/internal/store"
)

const columns = `id, policy, tenant, requester, reason, contact, requested, policy_deleted, containers_marked, key_destroyed, containers, message`

func insert(ctx context.Context, tx *store.Tx, p Purge) error {
	_, err := tx.Exec(ctx, `INSERT INTO purge (`+columns+`) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, 0, 0, '')`,
		p.ID, p.Policy, p.Tenant, p.Requester.String(), p.Reason, p.Contact, p.Requested.UnixMilli())
	return err
}

func insertApproval(ctx context.Context, tx *store.Tx, p Purge, a Approval) error {
	_, err := tx.Exec(ctx, `INSERT INTO purge_approval (policy, approver, tenant, approved) VALUES (?1, ?2, ?3, ?4)`,
		p.Policy, a.Approver.String(), p.Tenant, a.At.UnixMilli())
	return err
}

// whereApproved selects the approved purges of all tenants that are not completed.
const whereApproved = `key_destroyed = 0 AND (SELECT count(*) FROM purge_approval a WHERE a.policy = purge.policy) >= ?1 ORDER BY id`

func selectPurges(ctx context.Context, tx *store.Tx, where string, args ...any) ([]Purge, error) {
	list, err := purges(ctx, tx, where, args...)
	if err != nil {
		return nil, fmt.Errorf("read purges: %w", err)
	}
	for i := range list {
		if list[i].Approvals, err = approvalsOf(ctx, tx, list[i]); err != nil {
			return nil, fmt.Errorf("read approvals: %w", err)
		}
	}
	return list, nil
}

func purges(ctx context.Context, tx *store.Tx, where string, args ...any) ([]Purge, error) {
	rows, err := tx.Query(ctx, `SELECT `+columns+` FROM purge WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Purge
	for rows.Next() {
		var p Purge
		var requester string
		var requested, deleted, marked, destroyed int64
		err := rows.Scan(&p.ID, &p.Policy, &p.Tenant, &requester, &p.Reason, &p.Contact, &requested, &deleted, &marked, &destroyed, &p.Containers, &p.Message)
		if err != nil {
			return nil, err
		}
		if p.Requester, err = uuid.Parse(requester); err != nil {
			return nil, err
		}
		p.Requested, p.PolicyDeleted, p.ContainersMarked, p.KeyDestroyed = timeOrZero(requested), timeOrZero(deleted), timeOrZero(marked), timeOrZero(destroyed)
		list = append(list, p)
	}
	return list, rows.Err()
}

func approvalsOf(ctx context.Context, tx *store.Tx, p Purge) ([]Approval, error) {
	rows, err := tx.Query(ctx, `SELECT approver, approved FROM purge_approval WHERE tenant = ?1 AND policy = ?2 ORDER BY approved, approver`, p.Tenant, p.Policy)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Approval
	for rows.Next() {
		var approver string
		var approved int64
		if err := rows.Scan(&approver, &approved); err != nil {
			return nil, err
		}
		id, err := uuid.Parse(approver)
		if err != nil {
			return nil, errors.Join(err, rows.Err())
		}
		list = append(list, Approval{id, timeOrZero(approved)})
	}
	return list, rows.Err()
}

// timeOrZero returns a stored time, and the zero time for 0.
func timeOrZero(milli int64) time.Time {
	if milli == 0 {
		return time.Time{}
	}
	return time.UnixMilli(milli)
}

// setStepDone records when a step was done, and clears the message.
func setStepDone(ctx context.Context, tx *store.Tx, p Purge, column string, now time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE purge SET `+column+` = ?3, message = '' WHERE tenant = ?1 AND policy = ?2 AND `+column+` = 0`, p.Tenant, p.Policy, now.UnixMilli())
	return err
}

func addMarked(ctx context.Context, tx *store.Tx, p Purge, n int64) error {
	_, err := tx.Exec(ctx, `UPDATE purge SET containers = containers + ?3 WHERE tenant = ?1 AND policy = ?2`, p.Tenant, p.Policy, n)
	return err
}

func setMessage(ctx context.Context, tx *store.Tx, p Purge, message string) error {
	_, err := tx.Exec(ctx, `UPDATE purge SET message = ?3 WHERE tenant = ?1 AND policy = ?2`, p.Tenant, p.Policy, message)
	return err
}

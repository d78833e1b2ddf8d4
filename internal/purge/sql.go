package purge

import (
	"context"
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

// remove removes a purge with its approvals.
func remove(ctx context.Context, tx *store.Tx, p Purge) error {
	for _, statement := range []string{`DELETE FROM purge_approval WHERE tenant = ?1 AND policy = ?2`, `DELETE FROM purge WHERE tenant = ?1 AND policy = ?2`} {
		if _, err := tx.Exec(ctx, statement, p.Tenant, p.Policy); err != nil {
			return fmt.Errorf("remove purge %d: %w", p.ID, err)
		}
	}
	return nil
}

// whereApproved selects the approved purges of all tenants that are not completed.
const whereApproved = `key_destroyed = 0 AND (SELECT count(*) FROM purge_approval a WHERE a.policy = purge.policy) >= ?1 ORDER BY id`

// selectPurges returns the purges that where selects, with their approvals, in id order:
// with one query.
func selectPurges(ctx context.Context, tx *store.Tx, where string, args ...any) ([]Purge, error) {
	rows, err := store.Collect(ctx, tx, scanPurge, `SELECT p.id, p.policy, p.tenant, p.requester, p.reason, p.contact, p.requested,
		p.policy_deleted, p.containers_marked, p.key_destroyed, p.containers, p.message,
		COALESCE(a.approver, ''), COALESCE(a.approved, 0), COALESCE(who.name, '')
		FROM (SELECT `+columns+` FROM purge WHERE `+where+`) p
		LEFT JOIN purge_approval a ON a.policy = p.policy AND a.tenant = p.tenant
		LEFT JOIN principal who ON who.tenant = p.tenant AND who.id = a.approver
		ORDER BY p.id, a.approved, a.approver`, args...)
	if err != nil {
		return nil, fmt.Errorf("read purges: %w", err)
	}
	var list []Purge
	for _, p := range rows {
		if last := len(list) - 1; last >= 0 && list[last].ID == p.ID {
			list[last].Approvals = append(list[last].Approvals, p.Approvals...)
		} else {
			list = append(list, p)
		}
	}
	return list, nil
}

// scanPurge reads a purge with one of its approvals, if it has any.
func scanPurge(row store.Scanner) (p Purge, err error) {
	var requester, approver, name string
	var requested, deleted, marked, destroyed, approved int64
	err = row.Scan(&p.ID, &p.Policy, &p.Tenant, &requester, &p.Reason, &p.Contact, &requested, &deleted, &marked, &destroyed, &p.Containers, &p.Message,
		&approver, &approved, &name)
	if err != nil {
		return p, err
	}
	if p.Requester, err = uuid.Parse(requester); err != nil {
		return p, err
	}
	p.Requested, p.PolicyDeleted, p.ContainersMarked, p.KeyDestroyed = store.TimeOrZero(requested), store.TimeOrZero(deleted), store.TimeOrZero(marked), store.TimeOrZero(destroyed)
	if approver == "" {
		return p, nil
	}
	id, err := uuid.Parse(approver)
	p.Approvals = []Approval{{Approver: id, Name: name, At: store.TimeOrZero(approved)}}
	return p, err
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

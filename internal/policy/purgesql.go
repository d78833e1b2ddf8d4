package policy

import (
	"context"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

func setPurgeRequested(ctx context.Context, tx *store.Tx, pol Policy) error {
	_, err := tx.Exec(ctx, `UPDATE policy SET purge = ?3, recovery = 0 WHERE tenant = ?1 AND id = ?2`, pol.Tenant, pol.ID, int(PurgeRequested))
	return err
}

// clearPurgeRequested is the inverse of setPurgeRequested, except for the recovery mode.
func clearPurgeRequested(ctx context.Context, tx *store.Tx, tenant, policy int64) error {
	n, err := tx.Exec(ctx, `UPDATE policy SET purge = 0 WHERE tenant = ?1 AND id = ?2 AND purge = ?3`, tenant, policy, int(PurgeRequested))
	if err == nil && n != 1 {
		err = store.ErrOutdated
	}
	return err
}

// setPurged takes a policy out of service; its name is free from then on.
func setPurged(ctx context.Context, tx *store.Tx, tenant, policy int64) error {
	_, err := tx.Exec(ctx, `UPDATE policy SET purge = ?3, enabled = 0, assigned = 0, recovery = 0, name_key = guid WHERE tenant = ?1 AND id = ?2`,
		tenant, policy, int(Purged))
	return err
}

func setRecovery(ctx context.Context, tx *store.Tx, pol Policy, since int64) error {
	_, err := tx.Exec(ctx, `UPDATE policy SET recovery = ?3 WHERE tenant = ?1 AND id = ?2`, pol.Tenant, pol.ID, since)
	return err
}

// selectAvailabilityKeys returns the ids of every availability key that a
// revision of a policy was ever wrapped by.
func selectAvailabilityKeys(ctx context.Context, tx *store.Tx, tenant, policy int64) ([]int64, error) {
	return tx.IDs(ctx, `SELECT DISTINCT availability FROM revision WHERE tenant = ?1 AND policy = ?2 ORDER BY availability`, tenant, policy)
}

// findPurged returns the newest purged policy that had a name; another policy may
// have that name now.
func (p *Policies) findPurged(ctx context.Context, tx *store.Tx, tenant int64, name string) (Policy, error) {
	purged, err := selectPolicies(ctx, tx, `p.tenant = ?1 AND p.purge = ?2 ORDER BY p.id DESC`, tenant, int(Purged))
	if err != nil {
		return Policy{}, err
	}
	for _, pol := range purged {
		if strings.EqualFold(pol.Name, name) {
			return pol, nil
		}
	}
	return single(nil, nil)
}

// checkKeyPurged refuses a policy key whose policy was purged.
func checkKeyPurged(ctx context.Context, tx *store.Tx, tenant, policyKey int64) error {
	purged, err := selectPolicies(ctx, tx, `p.tenant = ?1 AND p.purge = ?2 AND p.id IN (SELECT policy FROM policy_key WHERE id = ?3)`, tenant, int(Purged), policyKey)
	if err == nil && len(purged) > 0 {
		err = purgedError(purged[0])
	}
	return err
}

// keptOrLastRevision returns the kept revision of a policy key, or the last one if its
// policy was purged and has no kept one.
func keptOrLastRevision(ctx context.Context, tx *store.Tx, tenant, policyKey int64) (revisionRow, error) {
	r, err := keptRevision(ctx, tx, tenant, policyKey)
	if !fail.Is(err, api.Gone) {
		return r, err
	}
	list, err := selectRevisions(ctx, tx, `r.tenant = ?1 AND r.policy_key = ?2 ORDER BY r.id DESC LIMIT 1`, tenant, policyKey)
	if err == nil && len(list) == 0 {
		err = fail.New(api.Damaged, "policy key %d of a purged policy has no revision", policyKey)
	}
	if err != nil {
		return revisionRow{}, err
	}
	return list[0], nil
}

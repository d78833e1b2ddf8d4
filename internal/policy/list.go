package policy

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Names is what a list shows of policies and policy keys: the policies of a tenant, and
// the revisions of some policy keys, as one query has read them.
type Names struct {
	policies  map[int64]Policy
	revisions map[int64]wrapping
}

// wrapping is the revision that wraps a policy key.
type wrapping struct {
	policy int64
	guid   uuid.UUID
	kept   bool
}

// Under is what a container's policy key is shown as.
type Under struct {
	Policy   Policy
	Revision uuid.UUID // that wraps the policy key, or that did until its policy was purged
	Current  bool      // the policy key is the policy's current one
}

// NamesOf reads all policies of a tenant, and the revisions of some policy keys.
func (p *Policies) NamesOf(ctx context.Context, tx *store.Tx, tenant int64, policyKeys []int64) (Names, error) {
	n := Names{map[int64]Policy{}, map[int64]wrapping{}}
	if len(policyKeys) == 0 {
		policyKeys = []int64{0} // no policy key has this id
	}
	in, args := store.InList(policyKeys, []any{tenant})
	rows, err := tx.Query(ctx, `SELECT `+policyColumns+`, COALESCE(r.policy_key, 0), COALESCE(r.guid, ''), COALESCE(r.erased, 0)
		FROM `+policyTables+` LEFT JOIN revision r ON r.policy = p.id AND r.tenant = p.tenant AND r.policy_key IN `+in+`
		WHERE p.tenant = ?1 ORDER BY r.id`, args...)
	if err != nil {
		return n, fmt.Errorf("read policies: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var key, erased int64
		var guid string
		pol, err := scanPolicy(rows, &key, &guid, &erased)
		if err != nil {
			return n, fmt.Errorf("read policies: %w", err)
		}
		n.policies[pol.ID] = pol
		// The kept revision counts; of a purged policy, which has none, the last one.
		if key == 0 || erased != 0 && (n.revisions[key].kept || pol.Purge != Purged) {
			continue
		}
		w := wrapping{policy: pol.ID, kept: erased == 0}
		w.guid, _ = uuid.Parse(guid) // an invalid one is shown as the nil one
		n.revisions[key] = w
	}
	return n, rows.Err()
}

// ByID returns a policy.
func (n Names) ByID(id int64) (Policy, error) {
	pol, found := n.policies[id]
	if !found {
		return single(nil, nil)
	}
	return single([]Policy{pol}, nil)
}

// Under returns what a policy key of NamesOf is shown as, or fails NotFound if it has no
// wrap.
func (n Names) Under(policyKey int64) (Under, error) {
	w, found := n.revisions[policyKey]
	if !found {
		return Under{}, fail.New(api.NotFound, "policy key %d has no wraps", policyKey)
	}
	pol, err := n.ByID(w.policy)
	return Under{pol, w.guid, pol.Current.ID == policyKey}, err
}

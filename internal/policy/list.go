package policy

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keyhealth"
	"keyroll/internal/profiles"
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

// Listed is a policy in a list, with what is shown of it besides its own row.
type Listed struct {
	Policy
	Last    Revision // the newest one of its current policy key, whether its wraps are kept or not
	GeoName string   // empty for the default geo
	// PrimaryHealth and SecondaryHealth are those of the customer keys of Last, nil
	// without a key.
	PrimaryHealth, SecondaryHealth *api.KeyHealth
	// Incomplete is why there is no Last or no GeoName.
	Incomplete error
}

// Page returns up to limit of a tenant's policies with an id above after, in id order,
// and the names of all its policies: with two queries.
func (p *Policies) Page(ctx context.Context, tx *store.Tx, tenant, after int64, limit int) ([]Listed, Names, error) {
	all, err := selectListed(ctx, tx, tenant)
	names := Names{policies: map[int64]Policy{}}
	var page []Listed
	var ids []int64
	for _, l := range all {
		names.policies[l.ID] = l.Policy
		if l.ID > after && len(page) < limit {
			page, ids = append(page, l), append(ids, l.ID)
		}
	}
	if err != nil {
		return nil, names, err
	}
	health, err := keyhealth.OfPolicies(ctx, tx, tenant, ids)
	for i := range page {
		page[i].PrimaryHealth, page[i].SecondaryHealth = page[i].healthOf(health, page[i].Last.Primary), page[i].healthOf(health, page[i].Last.Secondary)
	}
	return page, names, err
}

// ListOne returns a policy as Page does.
func (p *Policies) ListOne(ctx context.Context, tx *store.Tx, tenant, id int64) (Listed, Names, error) {
	page, names, err := p.Page(ctx, tx, tenant, id-1, 1)
	if err == nil {
		_, err = names.ByID(id)
	}
	if err != nil {
		return Listed{}, names, err
	}
	return page[0], names, nil
}

// selectListed returns the policies of a tenant in id order, without the health of keys.
func selectListed(ctx context.Context, tx *store.Tx, tenant int64) ([]Listed, error) {
	list, err := store.Collect(ctx, tx, func(row store.Scanner) (l Listed, err error) {
		var guid string
		var created int64
		r := &l.Last
		l.Policy, err = scanPolicy(row, &l.GeoName, &guid, &r.Primary.Vault, &r.Primary.Key, &r.Primary.Version,
			&r.Secondary.Vault, &r.Secondary.Key, &r.Secondary.Version, &r.AvailabilityKey, &r.AvailabilityVersion, &created)
		r.GUID, _ = uuid.Parse(guid) // an invalid one is shown as the nil one
		r.Policy, r.PolicyKey, r.Generation, r.Created = l.ID, l.Current.ID, l.Current.Generation, time.UnixMilli(created)
		switch {
		case guid == "":
			l.Incomplete = fail.New(api.NotFound, "policy key %d does not exist", l.Current.ID)
		case l.Geo != 0 && l.GeoName == "":
			l.Incomplete = fail.New(api.NotFound, "geo %d does not exist", l.Geo)
		}
		return l, err
	}, `SELECT `+policyColumns+`, COALESCE((SELECT g.name FROM geo g WHERE g.id = p.geo AND +g.tenant = p.tenant), ''),
		COALESCE(r.guid, ''), COALESCE(r.primary_vault, ''), COALESCE(r.primary_key_name, ''), COALESCE(r.primary_version, ''),
		COALESCE(r.secondary_vault, ''), COALESCE(r.secondary_key_name, ''), COALESCE(r.secondary_version, ''),
		COALESCE(r.availability, 0), COALESCE(r.availability_version, 0), COALESCE(r.created, 0)
		FROM `+policyTables+` LEFT JOIN revision r ON r.id =
			(SELECT n.id FROM revision n WHERE n.tenant = p.tenant AND n.policy = p.id AND n.policy_key = p.current ORDER BY n.id DESC LIMIT 1)
		WHERE p.tenant = ?1 ORDER BY p.id`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list policies: %w", err)
	}
	return list, nil
}

// History is a policy with all the keys that it ever had.
type History struct {
	Policy
	Keys     []KeyRow              // its policy keys
	Versions []envelope.KeyVersion // the customer key versions that wrapped them, the oldest first
}

// Histories returns the histories of some policies of a tenant by their ids: with one
// query.
func (p *Policies) Histories(ctx context.Context, tx *store.Tx, tenant int64, ids []int64) (map[int64]*History, error) {
	all := map[int64]*History{}
	if len(ids) == 0 {
		return all, nil
	}
	in, args := store.InList(ids, []any{tenant})
	rows, err := tx.Query(ctx, `SELECT `+policyColumns+`, COALESCE(o.id, 0), COALESCE(o.generation, 0),
		COALESCE(r.primary_vault, ''), COALESCE(r.primary_key_name, ''), COALESCE(r.primary_version, ''),
		COALESCE(r.secondary_vault, ''), COALESCE(r.secondary_key_name, ''), COALESCE(r.secondary_version, '')
		FROM `+policyTables+` LEFT JOIN policy_key o ON o.policy = p.id AND o.tenant = p.tenant
		LEFT JOIN revision r ON r.policy = p.id AND r.tenant = p.tenant AND r.policy_key = o.id
		WHERE p.tenant = ?1 AND p.id IN `+in+` ORDER BY r.created, r.id`, args...)
	if err != nil {
		return nil, fmt.Errorf("read the keys of policies: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var key KeyRow
		var primary, secondary envelope.KeyVersion
		pol, err := scanPolicy(rows, &key.ID, &key.Generation, &primary.Vault, &primary.Key, &primary.Version, &secondary.Vault, &secondary.Key, &secondary.Version)
		if err != nil {
			return nil, fmt.Errorf("read the keys of policies: %w", err)
		}
		if all[pol.ID] == nil {
			all[pol.ID] = &History{Policy: pol}
		}
		all[pol.ID].add(key, primary, secondary)
	}
	return all, rows.Err()
}

// add adds a policy key and the two versions that wrapped it, unless it has them.
func (h *History) add(key KeyRow, versions ...envelope.KeyVersion) {
	key.Tenant, key.Policy = h.Tenant, h.ID
	if key.ID != 0 && !slices.Contains(h.Keys, key) {
		h.Keys = append(h.Keys, key)
	}
	for _, kv := range versions {
		same := func(other envelope.KeyVersion) bool { return other.Fold() == kv.Fold() }
		if kv.Key != "" && !slices.ContainsFunc(h.Versions, same) {
			h.Versions = append(h.Versions, kv)
		}
	}
}

// ByID returns a policy.
func (n Names) ByID(id int64) (Policy, error) {
	pol, found := n.policies[id]
	if !found {
		return single(nil, nil)
	}
	return single([]Policy{pol}, nil)
}

// OfGeo returns the policy that covers the containers of a kind in one geo, and false if
// none with customer keys does.
func (n Names) OfGeo(kind string, geo int64) (Policy, bool, error) {
	for _, pol := range n.policies {
		profile := profiles.Of(pol.Kind)
		if profile.OnePerGeo && pol.Enabled && pol.Geo == geo && slices.Contains(profile.DefaultFor, kind) {
			pol, err := n.ByID(pol.ID)
			return pol, err == nil, err
		}
	}
	return Policy{}, false, nil
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

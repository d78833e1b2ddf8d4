package policy

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/profiles"
	"keyroll/internal/store"
)

const (
	policyColumns = `p.id, p.tenant, p.guid, p.kind, p.name, p.description, p.enabled, p.created, p.current, COALESCE(k.generation, 0),
		p.geo, p.assigned, p.recovery, p.purge, p.left_at`
	policyTables = `policy p LEFT JOIN policy_key k ON k.id = p.current AND k.policy = p.id`
)

func selectPolicies(ctx context.Context, tx *store.Tx, where string, args ...any) ([]Policy, error) {
	return store.Collect(ctx, tx, func(row store.Scanner) (Policy, error) { return scanPolicy(row) },
		`SELECT `+policyColumns+` FROM `+policyTables+` WHERE `+where, args...)
}

// scanPolicy reads policyColumns and more columns after them.
func scanPolicy(row store.Scanner, more ...any) (p Policy, err error) {
	var guid string
	var created, recovery, left int64
	err = row.Scan(append([]any{&p.ID, &p.Tenant, &guid, &p.Kind, &p.Name, &p.Description, &p.Enabled, &created, &p.Current.ID, &p.Current.Generation,
		&p.Geo, &p.Assigned, &recovery, &p.Purge, &left}, more...)...)
	if err != nil {
		return p, err
	}
	p.GUID, err = uuid.Parse(guid)
	switch {
	case err != nil:
		p.Damaged = fail.New(api.Damaged, "policy %d has an invalid GUID", p.ID)
	case !profiles.Exists(p.Kind):
		p.Damaged = fail.New(api.Damaged, "policy %d has an unknown kind", p.ID)
	case p.Current.Generation == 0:
		p.Damaged = fail.New(api.Damaged, "policy %d has policy key %d as its current one, which is not one of its own", p.ID, p.Current.ID)
	}
	p.Created = time.UnixMilli(created)
	if recovery != 0 {
		p.Recovery = time.UnixMilli(recovery)
	}
	if left != 0 {
		p.Left = time.UnixMilli(left)
	}
	p.Current.Tenant, p.Current.Policy = p.Tenant, p.ID
	return p, nil
}

func insertPolicy(ctx context.Context, tx *store.Tx, p Policy) error {
	_, err := tx.Exec(ctx, `INSERT INTO policy (id, tenant, guid, kind, name, name_key, description, enabled, current, created, geo)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)`,
		p.ID, p.Tenant, p.GUID.String(), string(p.Kind), p.Name, strings.ToLower(p.Name), p.Description, 1, p.Current.ID, p.Created.UnixMilli(), p.Geo)
	if store.IsUnique(err) {
		return fail.New(api.AlreadyExists, "policy %q already exists", p.Name)
	}
	return err
}

func setCurrent(ctx context.Context, tx *store.Tx, k KeyRow) error {
	_, err := tx.Exec(ctx, `UPDATE policy SET current = ?3 WHERE tenant = ?1 AND id = ?2`, k.Tenant, k.Policy, k.ID)
	return err
}

func insertKey(ctx context.Context, tx *store.Tx, k KeyRow, now time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO policy_key (id, tenant, policy, generation, created) VALUES (?1, ?2, ?3, ?4, ?5)`,
		k.ID, k.Tenant, k.Policy, k.Generation, now.UnixMilli())
	return err
}

func selectKeys(ctx context.Context, tx *store.Tx, tenant, policy int64) ([]KeyRow, error) {
	return store.Collect(ctx, tx, func(row store.Scanner) (k KeyRow, err error) {
		err = row.Scan(&k.ID, &k.Tenant, &k.Policy, &k.Generation)
		return k, err
	}, `SELECT id, tenant, policy, generation FROM policy_key WHERE tenant = ?1 AND policy = ?2 ORDER BY generation DESC`, tenant, policy)
}

func (p *Policies) insertRevision(ctx context.Context, tx *store.Tx, pol Policy, r envelope.Revision, now time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO revision (id, tenant, guid, policy, policy_key,
		primary_vault, primary_key_name, primary_version, secondary_vault, secondary_key_name, secondary_version,
		availability, availability_version, wrap_primary, wrap_secondary, wrap_availability, mac, created, erased, primary_local, secondary_local)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, 0, 1, 1)`,
		store.NewID(), pol.Tenant, r.ID.String(), pol.ID, r.Binding.PolicyKey,
		r.Primary.Vault, r.Primary.Key, r.Primary.Version, r.Secondary.Vault, r.Secondary.Key, r.Secondary.Version,
		r.AvailabilityKey, r.AvailabilityVersion, blob(r.WrapPrimary), blob(r.WrapSecondary), r.WrapAvailability, r.MAC(p.revisionKey), now.UnixMilli())
	return err
}

// blob stores an absent wrap as empty, not as NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// eraseWraps clears the wraps of a revision; its row stays to resolve its GUID.
func eraseWraps(ctx context.Context, tx *store.Tx, tenant int64, revision uuid.UUID, now time.Time) (bool, error) {
	n, err := tx.Exec(ctx, `UPDATE revision SET wrap_primary = ?3, wrap_secondary = ?3, wrap_availability = ?3, mac = ?3, erased = ?4
		WHERE tenant = ?1 AND guid = ?2 AND erased = 0`, tenant, revision.String(), []byte{}, now.UnixMilli())
	return n == 1, err
}

// revisionRow is a revision with what its MAC and the ledger need around it.
type revisionRow struct {
	envelope.Revision
	Policy          int64
	PolicyName      string
	Kind            api.PolicyKind
	InRecovery      bool // of the policy: the customer requested the use of its availability key
	Current         bool // wraps the policy's current policy key
	MAC             []byte
	Created, Erased time.Time
	Kept            bool
	Tenant          int64
	// Whether keyroll made the wraps of the two customer keys itself.
	LocalPrimary, LocalSecondary bool
}

func selectRevisions(ctx context.Context, tx *store.Tx, where string, args ...any) ([]revisionRow, error) {
	rows, err := tx.Query(ctx, `SELECT r.guid, t.guid, p.guid, p.id, p.name, p.kind, p.recovery, p.current, r.policy_key, k.generation,
		r.primary_vault, r.primary_key_name, r.primary_version, r.secondary_vault, r.secondary_key_name, r.secondary_version,
		r.availability, r.availability_version, r.wrap_primary, r.wrap_secondary, r.wrap_availability, r.mac, r.created, r.erased,
		r.tenant, r.primary_local <> 0, r.secondary_local <> 0
		FROM revision r JOIN policy p ON p.id = r.policy JOIN policy_key k ON k.id = r.policy_key JOIN tenant t ON t.id = r.tenant
		WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []revisionRow
	for rows.Next() {
		var r revisionRow
		var guid, tenant, policy string
		var recovery, current, created, erased int64
		err := rows.Scan(&guid, &tenant, &policy, &r.Policy, &r.PolicyName, &r.Kind, &recovery, &current, &r.Binding.PolicyKey, &r.Binding.Generation,
			&r.Primary.Vault, &r.Primary.Key, &r.Primary.Version, &r.Secondary.Vault, &r.Secondary.Key, &r.Secondary.Version,
			&r.AvailabilityKey, &r.AvailabilityVersion, &r.WrapPrimary, &r.WrapSecondary, &r.WrapAvailability, &r.MAC, &created, &erased,
			&r.Tenant, &r.LocalPrimary, &r.LocalSecondary)
		if err != nil {
			return nil, err
		}
		// An invalid GUID becomes the nil one, for which no MAC is valid: such a row is
		// refused when it is opened, and does not hide the others.
		r.ID, _ = uuid.Parse(guid)
		r.Binding.Tenant, _ = uuid.Parse(tenant)
		r.Binding.Policy, _ = uuid.Parse(policy)
		r.InRecovery, r.Current = recovery != 0, current == r.Binding.PolicyKey
		r.Created, r.Erased, r.Kept = time.UnixMilli(created), time.UnixMilli(erased), erased == 0
		list = append(list, r)
	}
	return list, rows.Err()
}

// keptRevision returns the one revision of a policy key whose wraps are kept; Gone if
// its policy was purged.
func keptRevision(ctx context.Context, tx *store.Tx, tenant, policyKey int64) (revisionRow, error) {
	if err := checkKeyPurged(ctx, tx, tenant, policyKey); err != nil {
		return revisionRow{}, err
	}
	list, err := selectRevisions(ctx, tx, `r.tenant = ?1 AND r.policy_key = ?2 AND r.erased = 0`, tenant, policyKey)
	if err == nil && len(list) == 0 {
		err = fail.New(api.NotFound, "policy key %d has no wraps: they were erased when nothing used it any more", policyKey).Because(sql.ErrNoRows)
	}
	if err != nil {
		return revisionRow{}, err
	}
	return list[0], nil
}

// ExternalVault is an external vault that a tenant's policies use.
type ExternalVault struct {
	Tenant int64
	URL    string
}

// ExternalVaults returns the external vaults that kept revisions of any tenant use.
func ExternalVaults(ctx context.Context, tx *store.Tx) ([]ExternalVault, error) {
	list, err := store.Collect(ctx, tx, func(row store.Scanner) (v ExternalVault, err error) {
		err = row.Scan(&v.Tenant, &v.URL)
		return v, err
	}, `SELECT tenant, primary_vault FROM revision WHERE erased = 0 AND primary_vault LIKE 'https://%'
		UNION SELECT tenant, secondary_vault FROM revision WHERE erased = 0 AND secondary_vault LIKE 'https://%' ORDER BY 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("read the vaults of revisions: %w", err)
	}
	return list, nil
}

// Package policy keeps policies, their policy keys, and the revisions that
// wrap each policy key under two exact customer key versions and the
// availability key.
//
// It guarantees that every policy key has a wrap that was decrypted and compared: a
// revision is written only after each of its roots has opened it. It never calls a
// vault inside a transaction. Start reading at change, which implements every refresh
// and update, and at Open.
package policy

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/singleflight"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keycache"
	"keyroll/internal/keycheck"
	"keyroll/internal/profiles"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
)

// Policy is a policy as stored in the database.
type Policy struct {
	ID, Tenant  int64
	GUID        uuid.UUID
	Kind        api.PolicyKind
	Name        string
	Description string
	Enabled     bool
	Current     KeyRow // the policy key for new wraps
	Created     time.Time
	Geo         int64     // of a site policy: the geo that it covers
	Assigned    bool      // the tenant's multi-workload policy
	Recovery    time.Time // when recovery mode began; zero: it is not in recovery mode
	Purge       Purge
	Left        time.Time // when it was left, for good; zero: it was not
	// Damaged says why a policy in a list cannot be used; nil: it is sound.
	Damaged error
}

// Purge is the state of the purge of a policy. The values are stored.
type Purge int

// The states of a purge, in their order.
const (
	NotPurged      Purge = 0
	PurgeRequested Purge = 1 // it no longer accepts containers
	Purged         Purge = 2
)

// KeyRow is a policy key as stored in the database: without its material.
type KeyRow struct {
	ID, Tenant, Policy int64
	Generation         uint32
}

// Roots uses customer keys, which stay in their vaults.
type Roots interface {
	rootkey.Keys
	// Describe returns what the management plane of a vault reports about it.
	Describe(ctx context.Context, tenant int64, id rootkey.Identity, vault string) (rootkey.VaultInfo, error)
	URI(kv envelope.KeyVersion) string
}

// Availability uses availability keys, which stay in their store; no method returns
// one.
type Availability interface {
	Create(ctx context.Context, tenant int64) (id int64, version uint32, err error)
	Wrap(ctx context.Context, id int64, version uint32, ec envelope.EncryptionContext, plaintext []byte) ([]byte, error)
	Open(ctx context.Context, id int64, version uint32, ec envelope.EncryptionContext, wrapped []byte) ([]byte, error)
	Add(ctx context.Context, tenant, id int64, version uint32) error
	DestroyVersion(ctx context.Context, id int64, version uint32) error
	Destroy(ctx context.Context, id int64) error
}

// Config is what Policies work with.
type Config struct {
	DB           *store.DB
	Roots        Roots
	Availability Availability
	// RevisionKey authenticates revision rows. It is stored in the database under
	// the seal, so that write access to the rows is not enough to forge one.
	RevisionKey *envelope.Key
	// StrictKeyChecks and OperatorVault are as in keycheck.Checker.
	StrictKeyChecks bool
	OperatorVault   string
	// OlderNodes, unless nil, reports whether a node is live that does not record
	// the health of customer keys.
	OlderNodes func(ctx context.Context, tx *store.Tx) (bool, error)
	Now        func() time.Time
	Logger     *slog.Logger
}

// Policies is the only type of the package with state: the cache of opened policy
// keys.
type Policies struct {
	db           *store.DB
	roots        Roots
	availability Availability
	revisionKey  *envelope.Key
	olderNodes   func(ctx context.Context, tx *store.Tx) (bool, error)
	now          func() time.Time
	logger       *slog.Logger
	checker      keycheck.Checker
	cache        *keycache.Cache
	// flights lets concurrent callers of one kind that need the same key share one
	// unwrap, and renewals one renewal.
	flights, renewals singleflight.Group
}

// New returns the policies of a database.
func New(c Config) *Policies {
	p := &Policies{db: c.DB, roots: c.Roots, availability: c.Availability, revisionKey: c.RevisionKey, olderNodes: c.OlderNodes, now: c.Now, logger: c.Logger,
		checker: keycheck.Checker{Roots: c.Roots, OperatorVault: c.OperatorVault, Strict: c.StrictKeyChecks, Now: c.Now}}
	p.cache = keycache.New(keycache.Bounds{Revocation: RevocationBound, Renew: renewAfter, Alert: alertBefore}, c.Now, p.renewOrRelease)
	return p
}

// Close drops and zeroes every opened policy key and stops renewing them.
func (p *Policies) Close() { p.cache.Close() }

// Bootstrap creates the tenant's service-managed policy if it does not exist.
func (p *Policies) Bootstrap(ctx context.Context, tenant int64, tenantGUID uuid.UUID) error {
	err := p.db.View(ctx, func(tx *store.Tx) error {
		_, err := p.ServiceManaged(ctx, tx, tenant)
		if !fail.Is(err, api.NotFound) {
			return err
		}
		all, listed := p.List(ctx, tx, tenant)
		if listed != nil {
			return listed
		}
		if len(all) > 0 { // the service-managed policy is always the first
			if all[0].Damaged != nil {
				return all[0].Damaged
			}
			return fail.New(api.Damaged, "tenant %d has policies, but its service-managed policy is missing", tenant)
		}
		return err
	})
	if !fail.Is(err, api.NotFound) {
		return err
	}
	made, err := p.PrepareCreate(ctx, tenant, tenantGUID, Definition{
		Kind: api.ServiceManagedPolicy, Name: "Service-managed",
		Description: "Roots held only by the service. It protects everything that no policy of the customer covers.",
	})
	if err == nil {
		err = p.db.Commit(ctx, made, func(tx *store.Tx) error {
			_, err := made.Commit(ctx, tx)
			return err
		})
	}
	if fail.Is(err, api.AlreadyExists) {
		return nil
	}
	return err
}

// Definition describes a new policy.
type Definition struct {
	Kind               api.PolicyKind
	Name, Description  string
	Primary, Secondary envelope.KeyVersion
	Geo                int64 // the geo that it covers; 0: the default one
}

// PreparedPolicy is a new policy whose policy key the vaults have wrapped. It holds no
// key.
type PreparedPolicy struct {
	// Warnings are the findings of the key checks that do not refuse a key.
	Warnings []string

	policies            *Policies
	pol                 Policy
	revision            sealed
	availabilityKey     int64
	availabilityVersion uint32
}

// PrepareCreate checks the keys of a new policy and makes a policy key under them and
// under a new availability key.
func (p *Policies) PrepareCreate(ctx context.Context, tenant int64, tenantGUID uuid.UUID, d Definition) (*PreparedPolicy, error) {
	primary, secondary, warnings, err := p.checkDefinition(ctx, tenant, profiles.Of(d.Kind), d)
	if err != nil {
		return nil, err
	}
	pol := Policy{ID: store.NewID(), Tenant: tenant, GUID: uuid.New(), Kind: d.Kind, Name: d.Name,
		Description: d.Description, Enabled: true, Created: p.now(), Geo: d.Geo}
	pol.Current = KeyRow{ID: store.NewID(), Tenant: tenant, Policy: pol.ID, Generation: 1}
	key := envelope.NewKey()
	defer key.Zero()
	availability, version, err := p.availability.Create(ctx, tenant)
	if err != nil {
		return nil, err
	}
	rev, err := p.seal(ctx, pol, key, envelope.Revision{
		Binding: envelope.Binding{Tenant: tenantGUID, Policy: pol.GUID, PolicyKey: pol.Current.ID, Generation: 1},
		Primary: primary, Secondary: secondary, AvailabilityKey: availability, AvailabilityVersion: version,
	})
	return &PreparedPolicy{warnings, p, pol, rev, availability, version}, err
}

// Prepare has nothing to do again: nothing that a new policy was prepared from can
// change.
func (c *PreparedPolicy) Prepare(context.Context) error { return nil }

// Commit writes the policy in tx.
func (c *PreparedPolicy) Commit(ctx context.Context, tx *store.Tx) (Policy, error) {
	p, pol, profile := c.policies, c.pol, profiles.Of(c.pol.Kind)
	if err := tx.Lock(ctx, pol.Tenant, true); err != nil {
		return pol, err
	}
	if err := p.checkFree(ctx, tx, pol); err != nil {
		return pol, err
	}
	if profile.Keys > 0 { // creation of containers resolves its default under this lock
		if _, err := p.lockServiceManaged(ctx, tx, pol.Tenant); err != nil {
			return pol, err
		}
	}
	if err := insertPolicy(ctx, tx, pol); err != nil {
		return pol, err
	}
	if err := insertKey(ctx, tx, pol.Current, p.now()); err != nil {
		return pol, err
	}
	if err := p.insert(ctx, tx, pol, c.revision, p.now()); err != nil {
		return pol, err
	}
	return pol, insertAvailability(ctx, tx, pol, availabilityVersion{c.availabilityKey, c.availabilityVersion}, pol.Created)
}

// Close has nothing to do.
func (c *PreparedPolicy) Close(context.Context, store.Outcome) {}

// CheckCreate makes the checks that Create makes before it writes anything, and
// returns its warnings.
func (p *Policies) CheckCreate(ctx context.Context, tenant int64, d Definition) (warnings []string, err error) {
	_, _, warnings, err = p.checkDefinition(ctx, tenant, profiles.Of(d.Kind), d)
	return warnings, err
}

// checkDefinition makes the checks of a new policy. What the transaction would refuse
// is refused before a vault is called.
func (p *Policies) checkDefinition(ctx context.Context, tenant int64, profile profiles.Profile, d Definition) (primary, secondary envelope.KeyVersion, warnings []string, err error) {
	if err := checkName(d.Name); err != nil {
		return primary, secondary, nil, err
	}
	planned := Policy{Tenant: tenant, Kind: d.Kind, Name: d.Name, Geo: d.Geo}
	if err := p.db.View(ctx, func(tx *store.Tx) error { return p.checkFree(ctx, tx, planned) }); err != nil {
		return primary, secondary, nil, err
	}
	return p.resolve(ctx, tenant, profile, d.Primary, d.Secondary)
}

// resolve is the single entry point by which a policy gets keys: it makes the checks
// and returns the exact versions of both keys, with the warnings.
func (p *Policies) resolve(ctx context.Context, tenant int64, profile profiles.Profile, primary, secondary envelope.KeyVersion) (a, b envelope.KeyVersion, warnings []string, err error) {
	if profile.Keys == 0 {
		return a, b, nil, nil
	}
	exact, warnings, err := p.checker.Resolve(ctx, pairOf(tenant, profile, primary, secondary))
	return exact.Primary, exact.Secondary, warnings, err
}

func pairOf(tenant int64, profile profiles.Profile, primary, secondary envelope.KeyVersion) keycheck.Pair {
	return keycheck.Pair{Tenant: tenant, Identity: profile.Identity, Kind: profile.Kind, Versionless: profile.Versionless, Primary: primary, Secondary: secondary}
}

// CheckKeys returns every reason for which a policy of a kind cannot use two keys,
// and the warnings. PrepareCreate refuses for the same reasons. It changes nothing. For
// a key without a version the newest one is checked, whatever the kind.
func (p *Policies) CheckKeys(ctx context.Context, tenant int64, kind api.PolicyKind, primary, secondary envelope.KeyVersion) (refusals []error, warnings []string, err error) {
	return p.checker.All(ctx, pairOf(tenant, profiles.Of(kind), primary, secondary))
}

func checkName(name string) error {
	if name == "" || len(name) > 64 || strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fail.New(api.InvalidArgument, "policy name %q must be 1 to 64 characters, without control characters and without spaces at its ends", name)
	}
	if _, err := uuid.Parse(name); err == nil {
		return fail.New(api.InvalidArgument, "policy name %q must not have the form of a GUID, because GUIDs also identify policies", name)
	}
	return nil
}

// checkFree fails if a new policy's name is taken, or no further policy of its kind may be
// enabled in its geo.
func (p *Policies) checkFree(ctx context.Context, tx *store.Tx, pol Policy) error {
	all, err := p.List(ctx, tx, pol.Tenant)
	if err != nil {
		return err
	}
	for _, other := range all {
		if strings.EqualFold(other.Name, pol.Name) && other.Purge != Purged {
			return fail.New(api.AlreadyExists, "policy %q already exists", other.Name)
		}
	}
	return checkActive(profiles.Of(pol.Kind), all, pol.Geo)
}

// checkActive fails if no further policy of a kind may be enabled in a geo.
func checkActive(profile profiles.Profile, all []Policy, geo int64) error {
	active := 0
	for _, other := range all {
		if other.Kind == profile.Kind && other.Enabled && other.Geo == geo {
			active++
		}
	}
	if active >= profile.MaxActive {
		return fail.New(api.Conflict, "a tenant has at most %d active policies of kind %s", profile.MaxActive, profile.Kind)
	}
	return nil
}

// List returns the tenant's policies, the oldest first, damaged ones too.
func (p *Policies) List(ctx context.Context, tx *store.Tx, tenant int64) ([]Policy, error) {
	return selectPolicies(ctx, tx, `p.tenant = ?1 ORDER BY p.id`, tenant)
}

// ByID returns a policy.
func (p *Policies) ByID(ctx context.Context, tx *store.Tx, tenant, id int64) (Policy, error) {
	return single(selectPolicies(ctx, tx, `p.tenant = ?1 AND p.id = ?2`, tenant, id))
}

// Find returns the policy that identity names: its name in any case, its GUID,
// or the GUID of any of its revisions.
func (p *Policies) Find(ctx context.Context, tx *store.Tx, tenant int64, identity string) (Policy, error) {
	found, err := single(selectPolicies(ctx, tx, `p.tenant = ?1 AND (p.name_key = ?2 OR p.guid = ?2
		OR p.id IN (SELECT policy FROM revision WHERE tenant = ?1 AND guid = ?2))`, tenant, strings.ToLower(identity)))
	if fail.Is(err, api.NotFound) {
		found, err = p.findPurged(ctx, tx, tenant, identity)
	}
	if fail.Is(err, api.NotFound) {
		return found, fail.New(api.NotFound, "policy %q does not exist", identity).
			WithHint("Get-DataEncryptionPolicy lists the policies; a policy is identified by its name, its GUID, or the GUID of one of its revisions")
	}
	return found, err
}

// single returns the first policy of a list: NotFound if there is none, Damaged if it
// is damaged.
func single(list []Policy, err error) (Policy, error) {
	if err == nil && len(list) == 0 {
		err = fail.New(api.NotFound, "the policy does not exist")
	}
	if err == nil {
		err = list[0].Damaged
	}
	if err != nil {
		return Policy{}, err
	}
	return list[0], nil
}

// ServiceManaged returns the id of the tenant's service-managed policy.
func (p *Policies) ServiceManaged(ctx context.Context, tx *store.Tx, tenant int64) (int64, error) {
	return p.ServiceManagedIn(ctx, tx, tenant, 0)
}

// ServiceManagedIn returns the id of the service-managed policy for the sites of a
// geo that have no policy of the customer: the tenant's for the default geo, and one
// of its own for every other geo. So no key page has sites of two geos, and a roll to
// or from the site policy of one geo does not move sites of another.
func (p *Policies) ServiceManagedIn(ctx context.Context, tx *store.Tx, tenant, geo int64) (int64, error) {
	pol, err := single(selectPolicies(ctx, tx, `p.tenant = ?1 AND p.kind = ?2 AND p.geo = ?3`, tenant, api.ServiceManagedPolicy, geo))
	return pol.ID, err
}

// Default returns the policy that covers a container of the given kind and geo
// without a policy of its own.
func (p *Policies) Default(ctx context.Context, tx *store.Tx, tenant int64, kind string, geo int64) (int64, error) {
	for _, profile := range profiles.All {
		if !slices.Contains(profile.DefaultFor, kind) {
			continue
		}
		if profile.ForTenant {
			return p.covering(ctx, tx, tenant)
		}
		pol, err := single(selectPolicies(ctx, tx, `p.tenant = ?1 AND p.kind = ?2 AND p.enabled = 1 AND p.geo = ?3`, tenant, profile.Kind, geo))
		if !fail.Is(err, api.NotFound) {
			return pol.ID, err
		}
	}
	return p.ServiceManagedIn(ctx, tx, tenant, geo)
}

// LockDefault is Default for a transaction that puts a container key under the
// policy: until the transaction ends, its locks prevent a registration, an
// assignment, a leave and a refresh.
func (p *Policies) LockDefault(ctx context.Context, tx *store.Tx, tenant int64, kind string, geo int64) (int64, KeyRow, error) {
	managed, err := p.ServiceManaged(ctx, tx, tenant)
	if err != nil {
		return 0, KeyRow{}, err
	}
	if err := tx.Lock(ctx, managed, false); err != nil {
		return 0, KeyRow{}, err
	}
	id, err := p.Default(ctx, tx, tenant, kind, geo)
	if err != nil {
		return 0, KeyRow{}, err
	}
	key, err := p.LockCurrent(ctx, tx, tenant, id)
	return id, key, err
}

// Current returns the current policy key of a policy.
func (p *Policies) Current(ctx context.Context, tx *store.Tx, tenant, policy int64) (KeyRow, error) {
	pol, err := p.ByID(ctx, tx, tenant, policy)
	return pol.Current, err
}

// LockCurrent takes the shared lock on a policy, to the end of the transaction, and
// returns the current policy key. A transaction that puts a slot under a policy key
// must call it first and use only that key; a refresh takes the lock exclusively, so
// no wrap is added under an older key afterwards. A policy that is disabled, or whose
// purge was requested, accepts nothing: Conflict, or Gone.
func (p *Policies) LockCurrent(ctx context.Context, tx *store.Tx, tenant, policy int64) (KeyRow, error) {
	if err := tx.Lock(ctx, policy, false); err != nil {
		return KeyRow{}, err
	}
	pol, err := p.ByID(ctx, tx, tenant, policy)
	if err == nil {
		err = pol.CheckAccepting()
	}
	return pol.Current, err
}

// Keys returns every policy key of a policy, the newest first.
func (p *Policies) Keys(ctx context.Context, tx *store.Tx, tenant, policy int64) ([]KeyRow, error) {
	return selectKeys(ctx, tx, tenant, policy)
}

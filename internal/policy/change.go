package policy

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/profiles"
	"keyroll/internal/store"
)

// Act says how a request changes the customer keys of a policy.
type Act int

// The ways to change the keys of a policy.
const (
	// Refresh moves a policy that names keys without a version to the newest versions
	// of both. A policy that names exact versions keeps them, and can be refreshed only
	// at depths container and content.
	Refresh Act = iota
	// Replace gives a policy that names keys without a version two other keys.
	Replace
	// UpdatePrimary and UpdateSecondary replace one key of a policy that names exact
	// versions.
	UpdatePrimary
	UpdateSecondary
)

// Request is a requested change of the customer keys of a policy.
type Request struct {
	Act Act
	// Primary and Secondary are the new keys: both for Replace, one for an update.
	Primary, Secondary envelope.KeyVersion
	// Depth says what gets new keys. At depth root the policy key keeps its material
	// and gets new wraps, with AllGenerations every older one too. At the depths below
	// there is a new policy key, at depths container and content even without a newer
	// version.
	Depth          api.Depth
	AllGenerations bool
}

// deep reports whether the request has work to do even without a newer key version.
func (r Request) deep() bool { return r.Depth == api.DepthContainer || r.Depth == api.DepthContent }

// verb names the act in an error.
func (r Request) verb() string {
	return map[Act]string{Refresh: "refresh", Replace: "replace the keys of", UpdatePrimary: "update", UpdateSecondary: "update"}[r.Act]
}

// check refuses an act that a policy of its kind does not have.
func (r Request) check(pol Policy) error {
	profile, verb := profiles.Of(pol.Kind), r.verb()
	const oneAtATime = "update one key at a time: Update-SPODataEncryptionPolicy, or keyroll policy update"
	switch {
	case profile.Keys == 0:
		return noCustomerKeys(verb, pol)
	case r.Act == Refresh && !profile.Versionless && !r.deep():
		return fail.New(api.InvalidArgument, "%s policy %q: a %s policy names exact key versions", verb, pol.Name, pol.Kind).
			WithHint(oneAtATime + "; at depths container and content a refresh keeps the versions")
	case r.Act == Replace && !profile.Versionless:
		return fail.New(api.InvalidArgument, "%s policy %q: a %s policy names exact key versions", verb, pol.Name, pol.Kind).WithHint(oneAtATime)
	case r.Act != Refresh && r.Act != Replace && profile.Versionless:
		return fail.New(api.InvalidArgument, "%s policy %q: a %s policy names no exact key versions", verb, pol.Name, pol.Kind).
			WithHint("refresh it: Set-DataEncryptionPolicy -Refresh, or keyroll policy refresh")
	}
	return nil
}

// keys returns the keys that a policy is to use, given its present revision. A key
// without a version means the newest version.
func (r Request) keys(profile profiles.Profile, now revisionRow) (primary, secondary envelope.KeyVersion) {
	primary, secondary = now.Primary, now.Secondary
	switch r.Act {
	case Refresh:
		if profile.Versionless {
			primary.Version, secondary.Version = "", ""
		}
	case Replace:
		primary, secondary = r.Primary, r.Secondary
	case UpdatePrimary:
		primary = r.Primary
	case UpdateSecondary:
		secondary = r.Secondary
	}
	return primary, secondary
}

// Change is what a refresh, a replacement or an update did.
type Change struct {
	Policy   Policy // after the change
	Revision Revision
	// NewKey says that there is a new policy key to move containers to.
	NewKey bool
	// Rewrapped counts policy keys that got new wraps in place.
	Rewrapped int
}

// PreparedChange is a change of the customer keys of a policy for which the vaults have
// wrapped the policy keys. It holds no key.
type PreparedChange struct {
	// Warnings are the findings of the key checks that do not refuse a key.
	Warnings []string
	NewKey   bool // as in Change

	policies           *Policies
	pol                Policy
	request            Request
	from               uuid.UUID           // the revision that was current
	primary, secondary envelope.KeyVersion // exact versions
	availability       uint32              // version of the third wraps
	next               KeyRow              // the new policy key, if NewKey
	replaced           []revisionRow       // to be erased, because their policy keys get new wraps
	revisions          []sealed
}

// Rewrapped returns how many policy keys get new wraps in place.
func (c *PreparedChange) Rewrapped() int { return len(c.replaced) }

// PrepareChange checks the keys of a request in their vaults and lets the vaults wrap
// the policy keys. It fails NoNewVersion if the policy uses the newest versions already
// and the depth does not ask for more.
func (p *Policies) PrepareChange(ctx context.Context, pol Policy, r Request) (*PreparedChange, error) {
	if err := r.check(pol); err != nil {
		return nil, err
	}
	now, err := p.authentic(ctx, pol.Tenant, pol.Current.ID)
	if err != nil {
		return nil, err
	}
	c := &PreparedChange{policies: p, pol: pol, request: r, from: now.ID, NewKey: r.Depth != api.DepthRoot}
	profile := profiles.Of(pol.Kind)
	c.primary, c.secondary = r.keys(profile, now)
	if c.primary, c.secondary, c.Warnings, err = p.resolve(ctx, pol.Tenant, profile, c.primary, c.secondary); err != nil {
		return nil, fmt.Errorf("%s policy %q: %w", r.verb(), pol.Name, err)
	}
	return c, c.Prepare(ctx)
}

// Prepare lets the vaults wrap the policy keys again. A roll of the availability key in
// the meantime is not a conflict: the wraps are made once more, under its new version.
func (c *PreparedChange) Prepare(ctx context.Context) error {
	p := c.policies
	for {
		version, err := p.availabilityOf(ctx, c.pol)
		if err != nil {
			return err
		}
		c.availability = version
		failed := c.wrap(ctx)
		if failed == nil {
			fault.Point("change.before-commit")
			return nil
		}
		if newest, err := p.availabilityOf(ctx, c.pol); err != nil || newest == version {
			return failed
		}
	}
}

// wrap makes the revisions of the change, with third wraps under one version of the
// availability key.
func (c *PreparedChange) wrap(ctx context.Context) error {
	p, pol := c.policies, c.pol
	now, err := p.authentic(ctx, pol.Tenant, pol.Current.ID)
	if err != nil {
		return err
	}
	if now.ID != c.from {
		return changedMeanwhile(pol)
	}
	if c.replaced, err = c.toRewrap(ctx, now); err != nil {
		return err
	}
	if len(c.replaced) == 0 && !c.request.deep() && now.uses(c.primary, c.secondary) {
		return fail.New(api.NoNewVersion, "policy %q already uses %s and %s; nothing was changed", pol.Name, p.roots.URI(c.primary), p.roots.URI(c.secondary)).
			WithHint("add a version first: Add-AzKeyVaultKey with the vault and the name of the key")
	}
	c.revisions = nil
	if c.NewKey {
		c.next = KeyRow{ID: store.NewID(), Tenant: pol.Tenant, Policy: pol.ID, Generation: pol.Current.Generation + 1}
		rev := now.Revision
		rev.Binding.PolicyKey, rev.Binding.Generation = c.next.ID, c.next.Generation
		key := envelope.NewKey()
		defer key.Zero()
		if err := c.seal(ctx, key, rev); err != nil {
			return err
		}
	}
	for _, old := range c.replaced {
		key, err := p.Open(ctx, pol.Tenant, old.Binding.PolicyKey, User)
		if err != nil {
			return err
		}
		defer key.Zero()
		if err := c.seal(ctx, key, old.Revision); err != nil {
			return err
		}
	}
	return nil
}

// seal adds a revision that wraps key by the keys of the change.
func (c *PreparedChange) seal(ctx context.Context, key *envelope.Key, rev envelope.Revision) error {
	rev.Primary, rev.Secondary, rev.AvailabilityVersion = c.primary, c.secondary, c.availability
	made, err := c.policies.seal(ctx, c.pol, key, rev)
	if err != nil {
		return fmt.Errorf("change policy %q: %w", c.pol.Name, err)
	}
	c.revisions = append(c.revisions, made)
	return nil
}

// Commit writes the change in tx. It takes the policy's lock, and fails Conflict if
// another request has changed the policy.
func (c *PreparedChange) Commit(ctx context.Context, tx *store.Tx) (done Change, err error) {
	p, pol, at := c.policies, c.pol, c.policies.now()
	if err := tx.Lock(ctx, pol.ID, true); err != nil {
		return done, err
	}
	locked, err := p.ByID(ctx, tx, pol.Tenant, pol.ID)
	if err != nil {
		return done, err
	}
	if err := locked.CheckAccepting(); err != nil {
		return done, err
	}
	if locked.Current != pol.Current {
		return done, changedMeanwhile(pol)
	}
	switch newest, err := newestAvailability(ctx, tx, pol.Tenant, pol.ID); {
	case err != nil:
		return done, err
	case newest != c.availability:
		return done, store.ErrOutdated
	}
	for _, old := range c.replaced {
		erased, err := eraseWraps(ctx, tx, pol.Tenant, old.ID, at)
		if err != nil {
			return done, err
		}
		if !erased {
			return done, changedMeanwhile(pol)
		}
	}
	if c.NewKey {
		if err := insertKey(ctx, tx, c.next, at); err != nil {
			return done, err
		}
		if err := setCurrent(ctx, tx, c.next); err != nil {
			return done, err
		}
	}
	for _, rev := range c.revisions {
		if err := p.insert(ctx, tx, pol, rev, at); err != nil {
			return done, err
		}
	}
	done = Change{NewKey: c.NewKey, Rewrapped: len(c.replaced)}
	if done.Policy, err = p.ByID(ctx, tx, pol.Tenant, pol.ID); err != nil {
		return done, err
	}
	done.Revision, err = p.RevisionOf(ctx, tx, pol.Tenant, done.Policy.Current.ID)
	return done, err
}

// Close ends the change.
func (c *PreparedChange) Close(_ context.Context, outcome store.Outcome) {
	if outcome == store.Committed {
		fault.Point("change.after-commit")
	}
}

func noCustomerKeys(act string, pol Policy) error {
	return fail.New(api.InvalidArgument, "%s policy %q: a %s policy has no customer keys", act, pol.Name, pol.Kind).
		WithHint("name a policy of your own: Get-DataEncryptionPolicy lists them")
}

func changedMeanwhile(pol Policy) error {
	return fail.New(api.Conflict, "policy %q was changed by another request meanwhile; this one changed nothing", pol.Name).
		WithHint("check the policy and repeat the request if it is still needed")
}

// toRewrap returns the revisions whose policy keys get new wraps in place.
func (c *PreparedChange) toRewrap(ctx context.Context, now revisionRow) ([]revisionRow, error) {
	p, pol := c.policies, c.pol
	var olds []revisionRow
	switch {
	case c.NewKey:
		return nil, nil
	case !c.request.AllGenerations:
		olds = []revisionRow{now}
	default:
		err := p.db.View(ctx, func(tx *store.Tx) (err error) {
			olds, err = selectRevisions(ctx, tx, `r.tenant = ?1 AND r.policy = ?2 AND r.erased = 0 ORDER BY k.generation DESC`, pol.Tenant, pol.ID)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	stale := olds[:0]
	for _, r := range olds {
		if r.uses(c.primary, c.secondary) {
			continue
		}
		// Its fields are copied into a new row, whose MAC would make them authentic.
		if err := p.check(r); err != nil {
			return nil, err
		}
		stale = append(stale, r)
	}
	return stale, nil
}

// uses reports whether the revision is wrapped by these two versions. The case of
// vault and key names is ignored.
func (r revisionRow) uses(primary, secondary envelope.KeyVersion) bool {
	return r.Primary.Fold() == primary.Fold() && r.Secondary.Fold() == secondary.Fold()
}

// Classes are the classes of key pages that are under policy keys.
var Classes = []envelope.Class{envelope.ClassActive, envelope.ClassInactive, envelope.ClassDisconnected, envelope.ClassDisabled,
	envelope.ClassSite, envelope.ClassWorkload, envelope.ClassBackup, envelope.ClassDirectory}

// OlderClasses are the classes of the keys that containers of Classes had before a
// roll replaced them. These keys are under policy keys too, but the ledger does not
// count them, so that each container is counted once.
var OlderClasses = []envelope.Class{envelope.ClassActive.Older(), envelope.ClassInactive.Older(), envelope.ClassDisconnected.Older(),
	envelope.ClassDisabled.Older(), envelope.ClassSite.Older(), envelope.ClassWorkload.Older()}

// Retire erases the wraps of the policy's older policy keys that nothing is under
// any more, and of a policy that was left those of its current one too. It returns
// how many. A key version that only these wraps named is not needed afterwards.
// confirmUnused confirms before that they are unused.
func (p *Policies) Retire(ctx context.Context, tenant, policy int64) (int, error) {
	var unused []revisionRow
	err := p.db.View(ctx, func(tx *store.Tx) (err error) {
		unused, err = selectUnused(ctx, tx, tenant, policy)
		return err
	})
	if err != nil || len(unused) == 0 {
		return 0, err
	}
	if err := p.confirmUnused(ctx, tenant, unused); err != nil {
		return 0, err
	}
	confirmed := map[uuid.UUID]bool{}
	for _, r := range unused {
		confirmed[r.ID] = true
	}
	var erased []int64
	err = p.db.InTx(ctx, func(tx *store.Tx) error {
		erased = erased[:0]
		if err := tx.Lock(ctx, policy, true); err != nil {
			return err
		}
		now, err := selectUnused(ctx, tx, tenant, policy)
		if err != nil {
			return err
		}
		for _, r := range now {
			if !confirmed[r.ID] {
				continue
			}
			if _, err := eraseWraps(ctx, tx, tenant, r.ID, p.now()); err != nil {
				return err
			}
			erased = append(erased, r.Binding.PolicyKey)
		}
		return nil
	})
	for _, id := range erased {
		p.cache.Drop(id) // also if the answer of the commit was lost
	}
	if err != nil {
		return 0, err
	}
	return len(erased), nil
}

// selectUnused returns the kept revisions of a policy whose policy keys protect
// nothing. That of the current policy key is among them only if the policy was left.
func selectUnused(ctx context.Context, tx *store.Tx, tenant, policy int64) (unused []revisionRow, err error) {
	kept, err := selectRevisions(ctx, tx, `r.tenant = ?1 AND r.policy = ?2 AND r.erased = 0 AND (r.policy_key <> p.current OR p.left_at <> 0)`, tenant, policy)
	if err != nil {
		return nil, err
	}
	for _, r := range kept {
		pages, _, err := keypage.Count(ctx, tx, tenant, []keypage.Parent{{ID: r.Binding.PolicyKey, Generation: r.Binding.Generation}}, slices.Concat(Classes, OlderClasses))
		if err != nil {
			return nil, err
		}
		if pages == 0 {
			unused = append(unused, r)
		}
	}
	return unused, nil
}

package policy

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keycache"
	"keyroll/internal/keyhealth"
	"keyroll/internal/profiles"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
)

// Open returns a policy key: from the cache, or decrypted with the customer keys in
// the order of the profile's rule, or with the availability key where the table of
// availabilityServes allows that for who. The caller must zero the copy. Open may
// call a vault, so it must not be called in a transaction. A policy key whose wraps
// are erased, because nothing used it any more, is NotFound: the caller must read
// again under which policy key its container is.
func (p *Policies) Open(ctx context.Context, tenant, policyKey int64, who Initiator) (*envelope.Key, error) {
	for {
		if key := p.cache.Get(policyKey, tenant, who); key != nil {
			return key, nil
		}
		// Concurrent callers of one kind share one unwrap; a user never gets the
		// result of the service's own work. The first caller's cancellation must
		// not fail the others, so the vault calls have their own time limit.
		_, err, _ := p.flights.Do(fmt.Sprint(who, tenant, policyKey), func() (any, error) {
			return nil, p.fill(context.WithoutCancel(ctx), tenant, policyKey, who)
		})
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// fill adds a policy key to the cache, or renews an overdue one that is there.
func (p *Policies) fill(ctx context.Context, tenant, policyKey int64, who Initiator) error {
	if e := p.cache.Overdue(policyKey, tenant); e != nil && p.renew(ctx, e) {
		return nil
	}
	since, at := p.cache.DropCount(), p.cache.Now()
	r, err := p.authentic(ctx, tenant, policyKey)
	if err != nil {
		return err
	}
	profile := profiles.Of(r.Kind)
	key, whose, err := p.unwrap(ctx, tenant, profile, r, who)
	if err != nil {
		return fmt.Errorf("open policy key of policy %q: %w", r.PolicyName, err)
	}
	defer key.Zero()
	p.cache.Put(keycache.Opened{ID: policyKey, Tenant: tenant, Kind: profile.Kind, Lifetime: profile.CacheLifetime, For: whose}, key, since, at)
	return nil
}

// authentic returns the kept revision of a policy key after it has verified its MAC:
// a row that was forged with public keys never reaches an unwrap. Nor does one whose
// policy was changed to a kind with other roots.
func (p *Policies) authentic(ctx context.Context, tenant, policyKey int64) (r revisionRow, err error) {
	err = p.db.View(ctx, func(tx *store.Tx) error {
		r, err = keptRevision(ctx, tx, tenant, policyKey)
		return err
	})
	if err != nil {
		return r, err
	}
	return r, p.check(r)
}

func (p *Policies) check(r revisionRow) error {
	if err := r.Check(p.revisionKey, r.MAC); err != nil {
		return err
	}
	if (profiles.Of(r.Kind).Keys > 0) != (r.Primary.Key != "") {
		return fail.New(api.Damaged, "check policy revision %v of policy %v: its root keys do not fit a policy of kind %s", r.ID, r.Binding.Policy, r.Kind)
	}
	return nil
}

// unwrap decides which root opens a policy key, and for whom: with a customer key for
// every initiator, with the availability key only for who.
func (p *Policies) unwrap(ctx context.Context, tenant int64, profile profiles.Profile, r revisionRow, who Initiator) (key *envelope.Key, whose Initiator, err error) {
	if profile.Keys == 0 {
		key, err = p.unwrapAvailability(ctx, tenant, r, "")
		return key, User, err
	}
	if key, err = p.unwrapCustomer(ctx, tenant, profile, r); err == nil {
		return key, User, nil
	}
	class, err := p.classifyFailure(ctx, tenant, r, err)
	if !availabilityServes(profile, r.InRecovery, class, who) {
		return nil, who, err
	}
	if who == User && !r.InRecovery {
		if err := p.checkOlderNodes(ctx, err); err != nil {
			return nil, who, err
		}
	}
	key, fallbackErr := p.unwrapAvailability(ctx, tenant, r, fallbackActivity(ctx, r))
	if fallbackErr != nil {
		_, detail, _ := fail.Public(err)
		_, why, hint := fail.Public(fallbackErr)
		return nil, who, fail.New(fail.CodeOf(err), "%s; availability key: %s", detail, why).WithHint("%s", hint).Because(err)
	}
	return key, who, nil
}

// availabilityServes is the table that says when the availability key may be used in
// place of the customer keys, once both have failed.
//
//	            outage   refusal   local problem
//	user        yes      no        no
//	system      yes      yes       no
//	recovery    yes      yes       yes
//
// For a policy without automatic fallback it is used only in the recovery mode that
// the customer requested, and then for every initiator.
func availabilityServes(profile profiles.Profile, inRecovery bool, class rootkey.Class, who Initiator) bool {
	switch {
	case inRecovery:
		return true
	case !profile.AutomaticFallback:
		return false
	case class == rootkey.Refusal:
		return who != User
	case class == rootkey.Local:
		return who == Recovery
	}
	return true
}

// checkOlderNodes refuses the availability key to a user while a node is live that
// does not record refusals, since that node may have received one. failed is the
// failure of the customer keys.
func (p *Policies) checkOlderNodes(ctx context.Context, failed error) error {
	if p.olderNodes == nil {
		return nil
	}
	older := false
	err := p.db.View(ctx, func(tx *store.Tx) (err error) {
		older, err = p.olderNodes(ctx, tx)
		return err
	})
	if err != nil || !older {
		return err
	}
	_, detail, _ := fail.Public(failed)
	return fail.New(fail.CodeOf(failed), "%s; the availability key is not used for users while a node of an older version is running, because that node records no refusals", detail).
		WithHint("upgrade or stop the older nodes").Because(failed)
}

// fallbackActivity is the detail in the audit log for a use of the availability key
// in place of the customer keys, in the words of the documented record.
func fallbackActivity(ctx context.Context, r revisionRow) string {
	o := audit.OriginOf(ctx)
	return fmt.Sprintf("CustomerKeyServiceEncryption: Fallback to Availability Key, PolicyId %s, ScopeKeyVersionId %s, RequestId %s, job %s",
		r.Binding.Policy, r.ID, o.Request, o.Operation)
}

// unwrapCustomer unwraps by the two customer keys in the order of the profile's rule.
func (p *Policies) unwrapCustomer(ctx context.Context, tenant int64, profile profiles.Profile, r revisionRow) (*envelope.Key, error) {
	roots := customerRoots(profile, r)
	ask := func(root root) rootkey.Unwrap {
		return func(ctx context.Context) ([]byte, error) { return p.unwrapWith(ctx, tenant, profile, r, root) }
	}
	bundle, _, err := profile.Rule(ctx, ask(roots[rootkey.Primary]), ask(roots[rootkey.Secondary]))
	if err != nil {
		return nil, err
	}
	defer clear(bundle)
	return envelope.Unbundle(bundle, r.Binding)
}

// unwrapWith unwraps the bundle by one customer key and checks that it belongs to
// this revision. The use, and the key's resulting health, are recorded before the
// result is used, even if the use was refused or cancelled: the vault of a request
// that lost a race may have done its work.
func (p *Policies) unwrapWith(ctx context.Context, tenant int64, profile profiles.Profile, r revisionRow, root root) ([]byte, error) {
	what := fmt.Sprintf("%s key %s of policy %s", root.name, p.roots.URI(root.kv), r.Binding.Policy)
	seen, err := keyhealth.Observe(ctx, p.db, r.rootOf(tenant, root.kv), what)
	if err != nil {
		return nil, err
	}
	bundle, err := p.roots.Unwrap(ctx, tenant, profile.Identity, root.kv, root.wrap)
	if err == nil {
		var key *envelope.Key
		key, err = envelope.Unbundle(bundle, r.Binding)
		key.Zero()
	}
	if recorded := p.recordUnwrap(ctx, p.use(tenant, r.Revision, "unwrap", root, err), seen.Result(err)); recorded != nil {
		err = recorded
	}
	if err != nil {
		clear(bundle)
		return nil, err
	}
	return bundle, nil
}

// unwrapAvailability decrypts a policy key with its availability key. why is added to
// the detail in the audit log.
func (p *Policies) unwrapAvailability(ctx context.Context, tenant int64, r revisionRow, why string) (*envelope.Key, error) {
	bundle, err := p.availability.Open(ctx, r.AvailabilityKey, r.AvailabilityVersion, availabilityContext(tenant, r.Revision), r.WrapAvailability)
	defer clear(bundle)
	if fail.Is(err, api.NotFound) {
		// The key that this wrap needs was not found. NotFound for a policy key
		// would mean that nothing needs it any more.
		err = asDamaged(err)
	}
	use := p.use(tenant, r.Revision, "unwrap", availabilityRoot, err)
	if why != "" {
		use.Detail += "; " + why
	}
	if recorded := p.record(ctx, use); recorded != nil {
		return nil, recorded
	}
	if err != nil {
		if now, rolled := p.rolledMeanwhile(ctx, tenant, r); rolled {
			return p.unwrapAvailability(ctx, tenant, now, why)
		}
		return nil, err
	}
	return envelope.Unbundle(bundle, r.Binding)
}

// asDamaged returns err with the code Damaged.
func asDamaged(err error) error {
	_, detail, hint := fail.Public(err)
	return fail.New(api.Damaged, "%s", detail).WithHint("%s", hint).Because(err)
}

// root is one customer key version with its wrap.
type root struct {
	name string
	kv   envelope.KeyVersion
	wrap []byte
}

// availabilityRoot stands for the availability key of a policy where a root is named.
var availabilityRoot = root{name: "availability"}

func customerRoots(profile profiles.Profile, r revisionRow) []root {
	if profile.Keys == 0 {
		return nil
	}
	return []root{{"primary", r.Primary, r.WrapPrimary}, {"secondary", r.Secondary, r.WrapSecondary}}
}

package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// Change is what a refresh or an update did.
type Change struct {
	Policy   Policy // after the change
	Revision Revision
	// NewKey says that there is a new policy key to move containers to.
	NewKey bool
	// Rewrapped counts policy keys that got new wraps in place.
	Rewrapped int
	// Warnings are the findings of the key checks that do not refuse a key.
	Warnings []string
}

// Refresh moves a policy that names keys without a version to the newest versions of
// both; a policy that names exact versions keeps them, and can be refreshed only at
// depths container and content. At depth root the policy key keeps its material and
// gets new wraps, with allGenerations every older one too. At the depths below there
// is a new policy key, at depths container and content even without a newer version.
// also runs in the same transaction.
func (p *Policies) Refresh(ctx context.Context, pol Policy, depth api.Depth, allGenerations bool, also func(*store.Tx, Change) error) (Change, error) {
	profile := ProfileOf(pol.Kind)
	if profile.Keys == 0 {
		return Change{}, noCustomerKeys("refresh", pol)
	}
	deep := depth == api.DepthContainer || depth == api.DepthContent
	if !profile.Versionless && !deep {
		return Change{}, fail.New(api.InvalidArgument, "refresh policy %q: a %s policy names exact key versions", pol.Name, pol.Kind).
			WithHint("update one key at a time: Update-SPODataEncryptionPolicy, or keyroll policy update; at depths container and content a refresh keeps the versions")
	}
	now, err := p.authentic(ctx, pol.Tenant, pol.Current.ID)
	if err != nil {
		return Change{}, err
	}
	latest := func(kv envelope.KeyVersion) envelope.KeyVersion {
		if profile.Versionless {
			kv.Version = ""
		}
		return kv
	}
	primary, secondary, warnings, err := p.resolve(ctx, pol.Tenant, profile, latest(now.Primary), latest(now.Secondary))
	if err != nil {
		return Change{}, fmt.Errorf("refresh policy %q: %w", pol.Name, err)
	}
	c, err := p.change(ctx, pol, now, primary, secondary, depth, allGenerations, also)
	c.Warnings = warnings
	return c, err
}

// Replace gives a policy that names keys without a version two other keys.
func (p *Policies) Replace(ctx context.Context, pol Policy, primary, secondary envelope.KeyVersion, depth api.Depth, also func(*store.Tx, Change) error) (Change, error) {
	profile := ProfileOf(pol.Kind)
	if profile.Keys == 0 {
		return Change{}, noCustomerKeys("replace the keys of", pol)
	}
	if !profile.Versionless {
		return Change{}, fail.New(api.InvalidArgument, "replace the keys of policy %q: a %s policy names exact key versions", pol.Name, pol.Kind).
			WithHint("update one key at a time: Update-SPODataEncryptionPolicy, or keyroll policy update")
	}
	now, err := p.authentic(ctx, pol.Tenant, pol.Current.ID)
	if err != nil {
		return Change{}, err
	}
	primary, secondary, warnings, err := p.resolve(ctx, pol.Tenant, profile, primary, secondary)
	if err != nil {
		return Change{}, fmt.Errorf("replace the keys of policy %q: %w", pol.Name, err)
	}
	c, err := p.change(ctx, pol, now, primary, secondary, depth, false, also)
	c.Warnings = warnings
	return c, err
}

// Update replaces one customer key of a policy that names exact versions by kv.
func (p *Policies) Update(ctx context.Context, pol Policy, secondary bool, kv envelope.KeyVersion, depth api.Depth, also func(*store.Tx, Change) error) (Change, error) {
	profile := ProfileOf(pol.Kind)
	if profile.Keys == 0 {
		return Change{}, noCustomerKeys("update", pol)
	}
	if profile.Versionless {
		return Change{}, fail.New(api.InvalidArgument, "update policy %q: a %s policy names no exact key versions", pol.Name, pol.Kind).
			WithHint("refresh it: Set-DataEncryptionPolicy -Refresh, or keyroll policy refresh")
	}
	now, err := p.authentic(ctx, pol.Tenant, pol.Current.ID)
	if err != nil {
		return Change{}, err
	}
	a, b := now.Primary, now.Secondary
	if secondary {
		b = kv
	} else {
		a = kv
	}
	a, b, warnings, err := p.resolve(ctx, pol.Tenant, profile, a, b)
	if err != nil {
		return Change{}, fmt.Errorf("update policy %q: %w", pol.Name, err)
	}
	c, err := p.change(ctx, pol, now, a, b, depth, false, also)
	c.Warnings = warnings
	return c, err
}

// change moves a policy to two exact key versions. The vault calls come first; the
// transaction then locks the policy exclusively and fails if another request changed
// the policy meanwhile. A roll of the availability key does not count as such a
// change: the vault calls are repeated.
func (p *Policies) change(ctx context.Context, pol Policy, now revisionRow, primary, secondary envelope.KeyVersion, depth api.Depth, allGenerations bool, also func(*store.Tx, Change) error) (Change, error) {
	for {
		version, err := p.availabilityOf(ctx, pol)
		if err != nil {
			return Change{}, err
		}
		c, failed := p.tryChange(ctx, pol, now, primary, secondary, version, depth, allGenerations, also)
		if failed == nil || fail.Is(failed, api.Unavailable) { // the commit may have succeeded without an answer
			return c, failed
		}
		if newest, err := p.availabilityOf(ctx, pol); err != nil || newest == version {
			return c, failed
		}
		if now, err = p.authentic(ctx, pol.Tenant, pol.Current.ID); err != nil {
			return c, failed
		}
	}
}

// tryChange makes one attempt of change, with new wraps under one version of the
// availability key.
func (p *Policies) tryChange(ctx context.Context, pol Policy, now revisionRow, primary, secondary envelope.KeyVersion, availability uint32, depth api.Depth, allGenerations bool, also func(*store.Tx, Change) error) (Change, error) {
	newKey := depth != api.DepthRoot
	olds, err := p.toRewrap(ctx, pol, now, primary, secondary, depth, allGenerations)
	if err != nil {
		return Change{}, err
	}
	deeper := newKey && depth != api.DepthPolicy // has work even without a newer version
	if len(olds) == 0 && !deeper && now.uses(primary, secondary) {
		return Change{}, fail.New(api.NoNewVersion, "policy %q already uses %s and %s; nothing was changed", pol.Name, p.Roots.URI(primary), p.Roots.URI(secondary)).
			WithHint("add a version first: Add-AzKeyVaultKey with the vault and the name of the key")
	}
	var news []sealed
	next := pol.Current
	if newKey {
		next = KeyRow{ID: store.NewID(), Tenant: pol.Tenant, Policy: pol.ID, Generation: pol.Current.Generation + 1}
		rev := now.Revision
		rev.Binding.PolicyKey, rev.Binding.Generation = next.ID, next.Generation
		rev.Primary, rev.Secondary, rev.AvailabilityVersion = primary, secondary, availability
		key := envelope.NewKey()
		defer key.Zero()
		made, err := p.seal(ctx, pol, key, rev)
		if err != nil {
			return Change{}, fmt.Errorf("change policy %q: %w", pol.Name, err)
		}
		news = append(news, made)
	}
	for _, old := range olds {
		rev := old.Revision
		rev.Primary, rev.Secondary, rev.AvailabilityVersion = primary, secondary, availability
		key, err := p.Open(ctx, pol.Tenant, rev.Binding.PolicyKey, User)
		if err != nil {
			return Change{}, err
		}
		defer key.Zero()
		made, err := p.seal(ctx, pol, key, rev)
		if err != nil {
			return Change{}, fmt.Errorf("change policy %q: %w", pol.Name, err)
		}
		news = append(news, made)
	}
	c := Change{NewKey: newKey, Rewrapped: len(olds)}
	at := p.Now()
	fault.Point("change.before-commit")
	err = p.DB.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.Lock(ctx, pol.ID, true); err != nil {
			return err
		}
		locked, err := p.ByID(ctx, tx, pol.Tenant, pol.ID)
		if err != nil {
			return err
		}
		if err := locked.CheckAccepting(); err != nil {
			return err
		}
		if locked.Current != pol.Current {
			return changedMeanwhile(pol)
		}
		if err := checkAvailability(ctx, tx, pol, availability); err != nil {
			return err
		}
		for _, old := range olds {
			erased, err := eraseWraps(ctx, tx, pol.Tenant, old.ID, at)
			if err != nil {
				return err
			}
			if !erased {
				return changedMeanwhile(pol)
			}
		}
		if c.NewKey {
			if err := insertKey(ctx, tx, next, at); err != nil {
				return err
			}
			if err := setCurrent(ctx, tx, next); err != nil {
				return err
			}
		}
		for _, rev := range news {
			if err := p.insert(ctx, tx, pol, rev, at); err != nil {
				return err
			}
		}
		if c.Policy, err = p.ByID(ctx, tx, pol.Tenant, pol.ID); err != nil {
			return err
		}
		if c.Revision, err = p.RevisionOf(ctx, tx, pol.Tenant, c.Policy.Current.ID); err != nil {
			return err
		}
		return also(tx, c)
	})
	if err == nil {
		fault.Point("change.after-commit")
	}
	return c, err
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
func (p *Policies) toRewrap(ctx context.Context, pol Policy, now revisionRow, primary, secondary envelope.KeyVersion, depth api.Depth, allGenerations bool) ([]revisionRow, error) {
	var olds []revisionRow
	switch {
	case depth != api.DepthRoot:
		return nil, nil
	case !allGenerations:
		olds = []revisionRow{now}
	default:
		err := p.DB.View(ctx, func(tx *store.Tx) (err error) {
			olds, err = selectRevisions(ctx, tx, `r.tenant = ?1 AND r.policy = ?2 AND r.erased = 0 ORDER BY k.generation DESC`, pol.Tenant, pol.ID)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	stale := olds[:0]
	for _, r := range olds {
		if r.uses(primary, secondary) {
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
	return foldCase(r.Primary) == foldCase(primary) && foldCase(r.Secondary) == foldCase(secondary)
}

func foldCase(kv envelope.KeyVersion) envelope.KeyVersion {
	kv.Vault, kv.Key = strings.ToLower(kv.Vault), strings.ToLower(kv.Key)
	return kv
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
	err := p.DB.View(ctx, func(tx *store.Tx) (err error) {
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
	err = p.DB.InTx(ctx, func(tx *store.Tx) error {
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
			if _, err := eraseWraps(ctx, tx, tenant, r.ID, p.Now()); err != nil {
				return err
			}
			erased = append(erased, r.Binding.PolicyKey)
		}
		return nil
	})
	for _, id := range erased {
		p.cache.drop(id) // also if the answer of the commit was lost
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

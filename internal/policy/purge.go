package policy

import (
	"context"
	"errors"
	"fmt"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/profiles"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
)

// CheckAccepting fails if a policy accepts no containers and its keys cannot be
// changed: Conflict if it is disabled or its purge was requested, Gone if it was
// purged.
func (pol Policy) CheckAccepting() error {
	switch pol.Purge {
	case PurgeRequested:
		return fail.New(api.Conflict, "the purge of policy %q has been requested: the policy no longer accepts containers, and its keys cannot be changed", pol.Name).
			WithHint("use another policy; keyroll purge status %s shows the progress of the purge", pol.GUID)
	case Purged:
		return purgedError(pol)
	}
	if !pol.Enabled {
		return Disabled("use or change", pol)
	}
	return nil
}

func purgedError(pol Policy) error {
	return fail.New(api.Gone, "policy %q was purged: the data that it protected can never be decrypted again", pol.Name).
		WithHint("keyroll purge status %s shows when, and what is still to be destroyed", pol.GUID)
}

// CheckRevoked fails unless the vault of every customer key that the policy still
// needs refuses the service: the customer must revoke the permission as the first
// step of a purge. With deletedToo a deleted key or vault counts as a refusal.
func (p *Policies) CheckRevoked(ctx context.Context, pol Policy, deletedToo bool) error {
	var kept []revisionRow
	err := p.db.View(ctx, func(tx *store.Tx) (err error) {
		kept, err = selectRevisions(ctx, tx, `r.tenant = ?1 AND r.policy = ?2 AND r.erased = 0 ORDER BY r.id DESC`, pol.Tenant, pol.ID)
		return err
	})
	if err != nil {
		return err
	}
	profile := profiles.Of(pol.Kind)
	asked := map[envelope.KeyVersion]bool{}
	for _, r := range kept {
		if err := p.check(r); err != nil {
			return err
		}
		for _, root := range customerRoots(profile, r) {
			if asked[root.kv.Fold()] {
				continue
			}
			asked[root.kv.Fold()] = true
			bundle, err := p.unwrapWith(ctx, pol.Tenant, profile, r, root)
			clear(bundle)
			if err := rootkey.CheckRevoked(root.kv, profile.Identity, err, deletedToo); err != nil {
				return fmt.Errorf("purge policy %q: %w", pol.Name, err)
			}
		}
	}
	return nil
}

// RequestPurge records in tx that the purge of a policy was requested, under the
// policy's lock: from then on it accepts no containers.
func (p *Policies) RequestPurge(ctx context.Context, tx *store.Tx, tenant, policy int64) (Policy, error) {
	if err := tx.Lock(ctx, policy, true); err != nil {
		return Policy{}, err
	}
	pol, err := p.ByID(ctx, tx, tenant, policy)
	if err == nil {
		err = pol.CheckAccepting()
	}
	if err != nil {
		return pol, err
	}
	return pol, setPurgeRequested(ctx, tx, pol)
}

// WithdrawPurge undoes RequestPurge, in tx.
func (p *Policies) WithdrawPurge(ctx context.Context, tx *store.Tx, tenant, policy int64) error {
	if err := tx.Lock(ctx, policy, true); err != nil {
		return err
	}
	return clearPurgeRequested(ctx, tx, tenant, policy)
}

// Delete deletes a policy in tx: it covers nothing, none of its keys can be opened by
// any caller, and its name is free. Its row stays to resolve its GUIDs.
func (p *Policies) Delete(ctx context.Context, tx *store.Tx, tenant, policy int64) error {
	// The policy of containers without one of their own is resolved under the lock
	// of the service-managed policy.
	managed, err := p.ServiceManaged(ctx, tx, tenant)
	if err != nil {
		return err
	}
	for _, id := range []int64{managed, policy} {
		if err := tx.Lock(ctx, id, true); err != nil {
			return err
		}
	}
	return setPurged(ctx, tx, tenant, policy)
}

// ForgetKeys removes every opened key of a policy from the cache.
func (p *Policies) ForgetKeys(ctx context.Context, tenant, policy int64) error {
	return p.db.View(ctx, func(tx *store.Tx) error {
		keys, err := p.Keys(ctx, tx, tenant, policy)
		for _, k := range keys {
			p.cache.Drop(k.ID)
		}
		return err
	})
}

// DestroyAvailabilityKey destroys the availability key of a policy in its store, and
// records that in the audit log. It is idempotent.
func (p *Policies) DestroyAvailabilityKey(ctx context.Context, tenant, policy int64) error {
	var ids []int64
	err := p.db.View(ctx, func(tx *store.Tx) (err error) {
		ids, err = selectAvailabilityKeys(ctx, tx, tenant, policy)
		return err
	})
	if err != nil {
		return err
	}
	if err := p.confirmPurged(ctx, tenant, policy, ids); err != nil {
		return err
	}
	for _, id := range ids {
		err := p.availability.Destroy(ctx, id)
		outcome := audit.Done
		if err != nil {
			outcome = string(fail.CodeOf(err))
		}
		recorded := p.record(ctx, audit.Entry{Tenant: tenant, Outcome: outcome, Detail: fmt.Sprintf("destroy availability key %d", id)})
		if err := errors.Join(err, recorded); err != nil {
			return err
		}
	}
	return nil
}

// EraseAll erases the wraps of all policy keys of a policy in tx. The rows stay
// to resolve GUIDs and to name the key versions.
func (p *Policies) EraseAll(ctx context.Context, tx *store.Tx, tenant, policy int64) error {
	if err := tx.Lock(ctx, policy, true); err != nil {
		return err
	}
	kept, err := selectRevisions(ctx, tx, `r.tenant = ?1 AND r.policy = ?2 AND r.erased = 0`, tenant, policy)
	for _, r := range kept {
		if _, err := eraseWraps(ctx, tx, tenant, r.ID, p.now()); err != nil {
			return err
		}
	}
	return err
}

package policy

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/lease"
	"keyroll/internal/store"
)

// Rolled is what a roll of one policy's availability key did.
type Rolled struct {
	Version   uint32 // that now makes every third wrap of the policy
	Wraps     int    // that were replaced
	Destroyed int    // older versions that were destroyed
}

// RollAvailability gives a policy's availability key a new version, replaces
// each kept wrap under an older version in place, and destroys the versions that no
// wrap needs any more. Policy keys are decrypted with the older version itself; the
// customer's vaults are not called. An interrupted roll leaves every wrap valid, and
// the next one finishes it. It may be run at any time, by any number of nodes, and
// no key leaves the process.
func (p *Policies) RollAvailability(ctx context.Context, pol Policy) (Rolled, error) {
	if pol.Purge == Purged {
		return Rolled{}, fail.New(api.Gone, "roll the availability key of policy %q: it was destroyed when the policy was purged", pol.Name)
	}
	kept, err := p.keptRevisions(ctx, pol)
	if err != nil {
		return Rolled{}, err
	}
	version, err := p.addAvailability(ctx, pol, kept)
	if err != nil {
		return Rolled{}, fmt.Errorf("roll the availability key of policy %q: %w", pol.Name, err)
	}
	return p.rewrapAllAvailability(ctx, pol, kept, version)
}

// rewrapAllAvailability replaces every kept wrap by one under a version of the
// availability key that exists.
func (p *Policies) rewrapAllAvailability(ctx context.Context, pol Policy, kept []revisionRow, version uint32) (rolled Rolled, err error) {
	rolled.Version = version
	failed := map[uuid.UUID]error{}
	skipped := map[uuid.UUID]bool{} // a wrap that failed would fail in the next round too
	for stale := staleRevisions(kept, version, skipped); len(stale) > 0; stale = staleRevisions(kept, version, skipped) {
		for _, r := range stale {
			replaced, err := p.rewrapAvailability(ctx, pol, r, version)
			switch {
			case err != nil && ctx.Err() != nil, fail.Is(err, api.VaultUnavailable):
				return rolled, fmt.Errorf("roll the availability key of policy %q: %w", pol.Name, err)
			case err != nil:
				skipped[r.ID] = true
				failed[r.ID] = err
			case replaced:
				rolled.Wraps++
			}
		}
		if kept, err = p.keptRevisions(ctx, pol); err != nil {
			return rolled, err
		}
	}
	rolled.Destroyed, err = p.destroyUnneeded(ctx, pol)
	// kept was read again: a wrap that another roll replaced meanwhile is not stale.
	if left := staleRevisions(kept, version, nil); len(left) > 0 {
		err = fmt.Errorf("roll the availability key of policy %q: %d wraps are still under an older version, the first because: %w", pol.Name, len(left), failed[left[0].ID])
	}
	return rolled, err
}

// staleRevisions returns the revisions whose third wrap is under an older version,
// without the skipped ones.
func staleRevisions(kept []revisionRow, version uint32, skipped map[uuid.UUID]bool) (list []revisionRow) {
	for _, r := range kept {
		if r.AvailabilityVersion < version && !skipped[r.ID] {
			list = append(list, r)
		}
	}
	return list
}

// keptRevisions returns the policy's revisions whose wraps are kept, the newest
// generation first.
func (p *Policies) keptRevisions(ctx context.Context, pol Policy) (kept []revisionRow, err error) {
	err = p.db.View(ctx, func(tx *store.Tx) error {
		kept, err = selectRevisions(ctx, tx, `r.tenant = ?1 AND r.policy = ?2 AND r.erased = 0 ORDER BY k.generation DESC`, pol.Tenant, pol.ID)
		return err
	})
	return kept, err
}

// addAvailability creates the version that follows the newest one under which a
// wrap is kept. If an interrupted roll created it already, it is used.
func (p *Policies) addAvailability(ctx context.Context, pol Policy, kept []revisionRow) (uint32, error) {
	if len(kept) == 0 {
		return 0, fail.New(api.NotFound, "no wrap is kept")
	}
	id, version := kept[0].AvailabilityKey, newest(kept)+1
	err := lease.InTx(ctx, p.db, func(tx *store.Tx) error {
		return insertAvailability(ctx, tx, pol, availabilityVersion{id, version}, p.now())
	})
	if err != nil {
		return 0, err
	}
	fault.Point("availability.before-add")
	if err := p.availability.Add(ctx, pol.Tenant, id, version); err != nil {
		return 0, err
	}
	fault.Point("availability.after-add")
	return version, nil
}

// newest returns the newest version that a revision's third wrap is under.
func newest(kept []revisionRow) (version uint32) {
	for _, r := range kept {
		version = max(version, r.AvailabilityVersion)
	}
	return version
}

// rewrapAvailability replaces the third wrap of one revision after the new one has
// been decrypted and compared, unless the revision was changed meanwhile.
func (p *Policies) rewrapAvailability(ctx context.Context, pol Policy, old revisionRow, version uint32) (replaced bool, err error) {
	if err := p.check(old); err != nil {
		return false, err
	}
	r, err := p.wrapAvailability(ctx, pol.Tenant, old.Revision, version)
	if err != nil {
		return false, err
	}
	fault.Point("availability.before-commit")
	err = lease.InTx(ctx, p.db, func(tx *store.Tx) error {
		if err := tx.Lock(ctx, pol.ID, true); err != nil {
			return err
		}
		if err := checkAvailability(ctx, tx, pol, version); err != nil {
			return err
		}
		replaced, err = replaceThirdWrap(ctx, tx, old, r, p.revisionKey)
		return err
	})
	if err == nil {
		fault.Point("availability.after-commit")
	}
	return replaced, err
}

// wrapAvailability returns the revision with its policy key wrapped by another
// version of its availability key. Every use of a version is recorded in the audit
// log.
func (p *Policies) wrapAvailability(ctx context.Context, tenant int64, old envelope.Revision, version uint32) (r envelope.Revision, err error) {
	r = old
	r.AvailabilityVersion = version
	var uses []audit.Entry
	defer func() {
		if recorded := p.record(ctx, uses...); err == nil {
			err = recorded
		}
	}()
	open := func(r envelope.Revision) ([]byte, error) {
		bundle, err := p.availability.Open(ctx, r.AvailabilityKey, r.AvailabilityVersion, availabilityContext(tenant, r), r.WrapAvailability)
		uses = append(uses, p.use(tenant, r, "unwrap", availabilityRoot, err))
		return bundle, err
	}
	bundle, err := open(old)
	if err != nil {
		return r, err
	}
	defer clear(bundle)
	key, err := envelope.Unbundle(bundle, old.Binding)
	if err != nil {
		return r, err
	}
	defer key.Zero()
	r.WrapAvailability, err = p.availability.Wrap(ctx, r.AvailabilityKey, version, availabilityContext(tenant, r), bundle)
	uses = append(uses, p.use(tenant, r, "wrap", availabilityRoot, err))
	if err != nil {
		return r, err
	}
	opened, err := open(r)
	if err != nil {
		return r, err
	}
	return r, verifyBundle(key, opened, r.Binding, "the availability key")
}

// destroyUnneeded destroys the older versions of a policy's availability key
// under which no wrap is kept, and returns how many. None can be used again, because
// checkAvailability requires the newest version, under the policy's lock, of every
// revision that is written. A version that cannot be destroyed now is tried again at
// the next roll or pass.
func (p *Policies) destroyUnneeded(ctx context.Context, pol Policy) (destroyed int, err error) {
	var unneeded []availabilityVersion
	err = lease.InTx(ctx, p.db, func(tx *store.Tx) error {
		if err := tx.Lock(ctx, pol.ID, true); err != nil {
			return err
		}
		newest, err := newestAvailability(ctx, tx, pol.Tenant, pol.ID)
		if err != nil {
			return err
		}
		unneeded, err = selectUnneeded(ctx, tx, pol.Tenant, pol.ID, newest)
		return err
	})
	if err != nil || len(unneeded) == 0 {
		return 0, err
	}
	if err := p.confirmUnneeded(ctx, pol, unneeded); err != nil {
		return 0, err
	}
	for _, v := range unneeded {
		fault.Point("availability.before-destroy")
		err := p.availability.DestroyVersion(ctx, v.id, v.version)
		if err != nil && !fail.Is(err, api.NotFound) {
			p.logger.WarnContext(ctx, "an older version of an availability key could not be destroyed; retrying later", "policy", pol.GUID, "error", err)
			continue
		}
		fault.Point("availability.after-destroy")
		if err := lease.InTx(ctx, p.db, func(tx *store.Tx) error {
			return setAvailabilityDestroyed(ctx, tx, pol.Tenant, v, p.now())
		}); err != nil {
			return destroyed, err
		}
		destroyed++
	}
	return destroyed, nil
}

// availabilityOf returns the newest version of a policy's availability key.
func (p *Policies) availabilityOf(ctx context.Context, pol Policy) (version uint32, err error) {
	err = p.db.View(ctx, func(tx *store.Tx) error {
		version, err = newestAvailability(ctx, tx, pol.Tenant, pol.ID)
		return err
	})
	return version, err
}

// checkAvailability refuses, under the policy's exclusive lock, a wrap by a
// version of the availability key that is older than the newest one: it may be
// destroyed at any moment. It must be called before a revision is written.
func checkAvailability(ctx context.Context, tx *store.Tx, pol Policy, version uint32) error {
	newest, err := newestAvailability(ctx, tx, pol.Tenant, pol.ID)
	if err == nil && version < newest {
		err = fail.New(api.Conflict, "the availability key of policy %q was rolled to version %d meanwhile", pol.Name, newest).
			WithHint("try again")
	}
	return err
}

// rolledMeanwhile returns the current state of a revision if its third wrap has
// been replaced since it was read: the version that it named may be destroyed.
func (p *Policies) rolledMeanwhile(ctx context.Context, tenant int64, r revisionRow) (revisionRow, bool) {
	now, err := p.authentic(ctx, tenant, r.Binding.PolicyKey)
	if err != nil || now.AvailabilityVersion == r.AvailabilityVersion {
		return r, false
	}
	return now, true
}

// RollAvailabilityIfDue rolls the availability key of a policy if its newest version is at
// least that old. Otherwise it finishes an interrupted roll, and destroys the versions
// that it left.
func (p *Policies) RollAvailabilityIfDue(ctx context.Context, pol Policy, age time.Duration) (Rolled, error) {
	kept, err := p.keptRevisions(ctx, pol)
	if err != nil || len(kept) == 0 {
		return Rolled{}, err
	}
	var since time.Time
	version := newest(kept)
	err = p.db.View(ctx, func(tx *store.Tx) (err error) {
		since, err = availabilityCreated(ctx, tx, pol.Tenant, kept[0].AvailabilityKey, version)
		return err
	})
	switch {
	case err != nil:
		return Rolled{}, err
	case p.now().Sub(since) >= age:
		return p.RollAvailability(ctx, pol)
	}
	return p.rewrapAllAvailability(ctx, pol, kept, version)
}

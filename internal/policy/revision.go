package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keyhealth"
	"keyroll/internal/profiles"
	"keyroll/internal/store"
)

// sealed is a revision whose wraps have been decrypted and compared, with the observed
// health of its customer keys; insert writes both.
type sealed struct {
	envelope.Revision
	shown []keyhealth.Observation
}

// insert writes the revision and the health of its customer keys in tx.
func (p *Policies) insert(ctx context.Context, tx *store.Tx, pol Policy, s sealed, at time.Time) error {
	for _, o := range s.shown {
		if _, err := o.Apply(ctx, tx, p.now()); err != nil {
			return err
		}
	}
	return p.insertRevision(ctx, tx, pol, s.Revision, at)
}

// seal completes a revision for key with a new GUID and a wrap under each of its
// roots; rootkey.Wrapper makes those of customer keys. When it returns, every wrap has
// been decrypted by its root and compared. Every use of a root is recorded in the
// audit log, refused ones too.
func (p *Policies) seal(ctx context.Context, pol Policy, key *envelope.Key, rev envelope.Revision) (r sealed, err error) {
	tenant := pol.Tenant
	r.Revision = rev
	r.ID = uuid.New()
	bundle := envelope.Bundle(key, r.Binding)
	defer clear(bundle)
	var uses []audit.Entry
	used := func(act string, err error) {
		uses = append(uses, p.use(tenant, r.Revision, act, availabilityRoot, err))
	}
	defer func() {
		if recorded := p.record(ctx, uses...); err == nil {
			err = recorded
		}
	}()
	if profiles.Of(pol.Kind).Keys > 0 {
		made, err := p.wrapByCustomerKeys(ctx, pol, r.Revision, bundle)
		for _, w := range made {
			uses = append(uses, w.uses...)
			r.shown = append(r.shown, w.shown)
		}
		if err != nil {
			return r, err
		}
		r.WrapPrimary, r.WrapSecondary = made[0].wrap, made[1].wrap
	}
	ec := availabilityContext(tenant, r.Revision)
	wrapped, err := p.availability.Wrap(ctx, r.AvailabilityKey, r.AvailabilityVersion, ec, bundle)
	used("wrap", err)
	if err != nil {
		return r, err
	}
	opened, err := p.availability.Open(ctx, r.AvailabilityKey, r.AvailabilityVersion, ec, wrapped)
	used("unwrap", err)
	if err != nil {
		return r, err
	}
	if err := verifyBundle(key, opened, r.Binding, "the availability key"); err != nil {
		return r, err
	}
	r.WrapAvailability = wrapped
	return r, nil
}

// customerWrap is a wrap by a customer key, with the uses of the key that it took.
type customerWrap struct {
	wrap  []byte
	shown keyhealth.Observation
	uses  []audit.Entry
}

// wrapByCustomerKeys wraps a bundle by both customer keys of a revision, at the same time.
// It returns the uses of both also if one of them fails.
func (p *Policies) wrapByCustomerKeys(ctx context.Context, pol Policy, r envelope.Revision, bundle []byte) (made [2]customerWrap, err error) {
	var both sync.WaitGroup
	var errs [2]error
	for i, root := range [...]root{{name: "primary", kv: r.Primary}, {name: "secondary", kv: r.Secondary}} {
		both.Go(func() {
			w := &made[i]
			id := keyhealth.Root{Tenant: pol.Tenant, Policy: pol.ID, Principal: profiles.Of(pol.Kind).Identity, Key: root.kv}
			what := fmt.Sprintf("%s key %s of policy %s", root.name, p.roots.URI(root.kv), pol.GUID)
			if w.shown, errs[i] = keyhealth.Observe(ctx, p.db, id, what); errs[i] != nil {
				return
			}
			w.wrap, errs[i] = p.wrapperOf(id).WrapLocally(ctx, bundle, func(act string, err error) {
				w.uses = append(w.uses, p.use(pol.Tenant, r, act, root, err))
			})
			w.shown = w.shown.Result(errs[i])
		})
	}
	both.Wait()
	return made, cmp.Or(errs[0], errs[1])
}

// verifyBundle checks that a bundle that a root decrypted has key and the binding b,
// and clears the bundle.
func verifyBundle(key *envelope.Key, bundle []byte, b envelope.Binding, root string) error {
	defer clear(bundle)
	opened, err := envelope.Unbundle(bundle, b)
	if err != nil {
		return fmt.Errorf("verify a new wrap with %s: %w", root, err)
	}
	defer opened.Zero()
	if !opened.Equal(key) {
		return fail.New(api.Damaged, "verify a new wrap with %s: it returned another key than it had wrapped", root)
	}
	return nil
}

func availabilityContext(tenant int64, r envelope.Revision) envelope.EncryptionContext {
	return envelope.EncryptionContext{Tenant: tenant, Child: r.Binding.PolicyKey, Count: 1}
}

// use describes one use of a root key: by which root, on which policy key, and with
// which result. The audit log adds who and why.
func (p *Policies) use(tenant int64, r envelope.Revision, act string, by root, err error) audit.Entry {
	what := fmt.Sprintf("%s policy key %d of policy %s by its %s key", act, r.Binding.PolicyKey, r.Binding.Policy, by.name)
	if by.kv.Key != "" {
		what += " " + p.roots.URI(by.kv)
	} else {
		what += fmt.Sprintf(" %d version %d", r.AvailabilityKey, r.AvailabilityVersion)
	}
	outcome := audit.Done
	switch {
	case errors.Is(err, context.Canceled):
		outcome = audit.Cancelled
	case err != nil:
		outcome = string(fail.CodeOf(err))
	}
	return audit.Entry{Tenant: tenant, Outcome: outcome, Detail: what}
}

// record writes uses of root keys to the audit log before their result is used, even
// if the request was cancelled.
func (p *Policies) record(ctx context.Context, uses ...audit.Entry) error {
	if len(uses) == 0 {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	return p.db.Append(ctx, func(ctx context.Context, tx *store.Tx) error { return p.recordIn(ctx, tx, uses) })
}

func (p *Policies) recordIn(ctx context.Context, tx *store.Tx, uses []audit.Entry) error {
	for _, u := range uses {
		if err := audit.RootKeyUse(ctx, tx, u, p.now()); err != nil {
			return err
		}
	}
	return nil
}

// recordUnwrap is record for one unwrap by a customer key; it writes the key's health
// too.
func (p *Policies) recordUnwrap(ctx context.Context, use audit.Entry, o keyhealth.Observation) error {
	ctx = context.WithoutCancel(ctx)
	var change string
	err := p.db.Append(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		if err := p.recordIn(ctx, tx, []audit.Entry{use}); err != nil {
			return err
		}
		change, err = o.Apply(ctx, tx, p.now())
		return err
	})
	if err == nil {
		p.warn(ctx, change)
	}
	return err
}

// Revision is what a caller may see of a revision.
type Revision struct {
	GUID               uuid.UUID
	Policy             int64
	PolicyKey          int64
	Generation         uint32
	Primary, Secondary envelope.KeyVersion
	Created            time.Time
	// The policy's own availability key, and the version that holds the third wrap.
	AvailabilityKey     int64
	AvailabilityVersion uint32
}

// RevisionOf returns the revision that wraps a policy key, or that did until its
// policy was purged.
func (p *Policies) RevisionOf(ctx context.Context, tx *store.Tx, tenant, policyKey int64) (Revision, error) {
	r, err := keptOrLastRevision(ctx, tx, tenant, policyKey)
	if err != nil {
		return Revision{}, err
	}
	return r.toRevision(), nil
}

func (r revisionRow) toRevision() Revision {
	return Revision{GUID: r.ID, Policy: r.Policy, PolicyKey: r.Binding.PolicyKey, Generation: r.Binding.Generation,
		Primary: r.Primary, Secondary: r.Secondary, Created: r.Created,
		AvailabilityKey: r.AvailabilityKey, AvailabilityVersion: r.AvailabilityVersion}
}

package policy

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/profiles"
	"keyroll/internal/store"
)

// CheckLost fails unless both customer keys of a policy are lost and the policy can be
// put into recovery mode: it is refused while one of the keys works, and for policies
// with automatic fallback.
func (p *Policies) CheckLost(ctx context.Context, pol Policy) error {
	profile := profiles.Of(pol.Kind)
	switch {
	case profile.Keys == 0 || profile.AutomaticFallback:
		return fail.New(api.InvalidArgument, "recover policy %q: a %s policy has no recovery mode", pol.Name, pol.Kind).
			WithHint("create a new policy and assign it to the containers that the lost keys protect: the availability key decrypts their keys while they are moved")
	case pol.CheckAccepting() != nil:
		return pol.CheckAccepting()
	case !pol.Recovery.IsZero():
		return fail.New(api.Conflict, "recover policy %q: it is in recovery mode already", pol.Name).
			WithHint("give it two new keys: Restore-SPODataEncryptionPolicy")
	}
	r, err := p.authentic(ctx, pol.Tenant, pol.Current.ID)
	if err != nil {
		return err
	}
	for _, root := range customerRoots(profile, r) {
		bundle, err := p.unwrapWith(ctx, pol.Tenant, profile, r, root)
		clear(bundle)
		if err == nil {
			return fail.New(api.Conflict, "recover policy %q: its %s key %s can still decrypt it", pol.Name, root.name, p.roots.URI(root.kv)).
				WithHint("replace only the lost key: Update-SPODataEncryptionPolicy")
		}
	}
	return nil
}

// Recover puts a policy that CheckLost accepted into recovery mode: until it is
// restored, its availability key opens it for every initiator.
func (p *Policies) Recover(ctx context.Context, tx *store.Tx, pol Policy) error {
	if err := p.lockUnchanged(ctx, tx, pol); err != nil {
		return err
	}
	return setRecovery(ctx, tx, pol, p.now().UnixMilli())
}

// PreparedRestore is the end of the recovery mode of a policy.
type PreparedRestore struct {
	// Warnings are the findings of the key checks that do not refuse a key.
	Warnings []string

	policies *Policies
	pol      Policy
	change   *PreparedChange // nil: all wraps are by the two keys already
}

// PrepareRestore lets two customer keys wrap each policy key that is still needed. The
// policy keys keep their material.
func (p *Policies) PrepareRestore(ctx context.Context, pol Policy, primary, secondary envelope.KeyVersion) (*PreparedRestore, error) {
	if err := pol.CheckAccepting(); err != nil {
		return nil, err
	}
	if pol.Recovery.IsZero() {
		return nil, fail.New(api.Conflict, "restore policy %q: it is not in recovery mode", pol.Name).
			WithHint("if both of its keys are lost, enter recovery mode: keyroll policy recover %q", pol.Name)
	}
	profile := profiles.Of(pol.Kind)
	r := &PreparedRestore{policies: p, pol: pol}
	a, b, warnings, err := p.resolve(ctx, pol.Tenant, profile, primary, secondary)
	if err != nil {
		return nil, fmt.Errorf("restore policy %q: %w", pol.Name, err)
	}
	now, err := p.authentic(ctx, pol.Tenant, pol.Current.ID)
	if err != nil {
		return nil, err
	}
	r.Warnings = warnings
	r.change = &PreparedChange{policies: p, pol: pol, from: now.ID, primary: a, secondary: b, request: Request{Depth: api.DepthRoot, AllGenerations: true}}
	if err = r.change.Prepare(ctx); !fail.Is(err, api.NoNewVersion) {
		return r, err
	}
	// The lost keys are available again, and all wraps are already by them.
	r.change = nil
	for _, root := range customerRoots(profile, now) {
		bundle, err := p.unwrapWith(ctx, pol.Tenant, profile, now, root)
		clear(bundle)
		if err != nil {
			return nil, fmt.Errorf("restore policy %q: %w", pol.Name, err)
		}
	}
	return r, nil
}

// Prepare lets the customer keys wrap the policy keys again.
func (r *PreparedRestore) Prepare(ctx context.Context) error {
	if r.change == nil {
		return nil
	}
	return r.change.Prepare(ctx)
}

// Commit ends the recovery mode in tx.
func (r *PreparedRestore) Commit(ctx context.Context, tx *store.Tx) error {
	if r.change == nil {
		if err := r.policies.lockUnchanged(ctx, tx, r.pol); err != nil {
			return err
		}
	} else if _, err := r.change.Commit(ctx, tx); err != nil {
		return err
	}
	return setRecovery(ctx, tx, r.pol, 0)
}

// Close ends the change.
func (r *PreparedRestore) Close(ctx context.Context, outcome store.Outcome) {
	if r.change != nil {
		r.change.Close(ctx, outcome)
	}
}

// lockUnchanged takes a policy's lock and fails if the policy was changed since pol
// was read.
func (p *Policies) lockUnchanged(ctx context.Context, tx *store.Tx, pol Policy) error {
	if err := tx.Lock(ctx, pol.ID, true); err != nil {
		return err
	}
	now, err := p.ByID(ctx, tx, pol.Tenant, pol.ID)
	if err == nil && (now.Current != pol.Current || now.Purge != pol.Purge || !now.Recovery.Equal(pol.Recovery)) {
		err = changedMeanwhile(pol)
	}
	return err
}

package policy

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Recover puts a policy whose two customer keys are lost into recovery mode: until
// Restore its availability key opens it for every initiator. It is refused while one
// of the customer keys works, and for policies with automatic fallback. also runs in
// the same transaction.
func (p *Policies) Recover(ctx context.Context, pol Policy, also func(*store.Tx) error) error {
	profile := ProfileOf(pol.Kind)
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
			return fail.New(api.Conflict, "recover policy %q: its %s key %s can still decrypt it", pol.Name, root.name, p.Roots.URI(root.kv)).
				WithHint("replace only the lost key: Update-SPODataEncryptionPolicy")
		}
	}
	return p.DB.InTx(ctx, func(tx *store.Tx) error {
		if err := p.lockUnchanged(ctx, tx, pol); err != nil {
			return err
		}
		if err := setRecovery(ctx, tx, pol, p.Now().UnixMilli()); err != nil {
			return err
		}
		return also(tx)
	})
}

// Restore ends the recovery mode of a policy: each of its policy keys that is still
// needed gets wraps by two new customer keys, and keeps its material. also runs in
// the same transaction.
func (p *Policies) Restore(ctx context.Context, pol Policy, primary, secondary envelope.KeyVersion, also func(*store.Tx) error) (warnings []string, err error) {
	if err := pol.CheckAccepting(); err != nil {
		return nil, err
	}
	if pol.Recovery.IsZero() {
		return nil, fail.New(api.Conflict, "restore policy %q: it is not in recovery mode", pol.Name).
			WithHint("if both of its keys are lost, enter recovery mode: keyroll policy recover %q", pol.Name)
	}
	profile := ProfileOf(pol.Kind)
	a, b, warnings, err := p.resolve(ctx, pol.Tenant, profile, primary, secondary)
	if err != nil {
		return nil, fmt.Errorf("restore policy %q: %w", pol.Name, err)
	}
	now, err := p.authentic(ctx, pol.Tenant, pol.Current.ID)
	if err != nil {
		return nil, err
	}
	end := func(tx *store.Tx, _ Change) error {
		if err := setRecovery(ctx, tx, pol, 0); err != nil {
			return err
		}
		return also(tx)
	}
	_, err = p.change(ctx, pol, now, a, b, api.DepthRoot, true, end)
	if !fail.Is(err, api.NoNewVersion) {
		return warnings, err
	}
	// The lost keys are available again, and all wraps are already by them.
	for _, root := range customerRoots(profile, now) {
		bundle, err := p.unwrapWith(ctx, pol.Tenant, profile, now, root)
		clear(bundle)
		if err != nil {
			return nil, fmt.Errorf("restore policy %q: %w", pol.Name, err)
		}
	}
	return warnings, p.DB.InTx(ctx, func(tx *store.Tx) error {
		if err := p.lockUnchanged(ctx, tx, pol); err != nil {
			return err
		}
		return end(tx, Change{})
	})
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

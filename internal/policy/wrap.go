package policy

import (
	"context"
	"crypto/rand"
	"crypto/subtle"

	"keyroll/internal/keyhealth"
	"keyroll/internal/rootkey"
)

// wrapLocally wraps a bundle for a customer key and verifies that the vault unwraps
// the result to exactly the bundle. used is called after each use of the key.
func (p *Policies) wrapLocally(ctx context.Context, root keyhealth.Root, bundle []byte, used func(act string, err error)) ([]byte, error) {
	info, err := p.roots.Key(ctx, root.Tenant, root.Principal, root.Key)
	if err != nil {
		return nil, err
	}
	err = p.tryWrapKey(ctx, root, info, len(bundle))
	used("test wrap for", err)
	if err != nil {
		return nil, err
	}
	wrapped, err := info.Encrypt(bundle)
	if err != nil {
		return nil, err
	}
	err = p.checkUnwraps(ctx, root, info, wrapped, bundle)
	used("unwrap", err)
	if err != nil {
		return nil, err
	}
	return wrapped, nil
}

// tryWrapKey has a vault wrap random bytes, which proves the permission wrapKey.
// The answer is discarded: a vault may return anything as its wrap.
func (p *Policies) tryWrapKey(ctx context.Context, root keyhealth.Root, info rootkey.KeyInfo, size int) error {
	trial := make([]byte, size)
	rand.Read(trial)
	answer, err := p.roots.Wrap(ctx, root.Tenant, root.Principal, root.Key, trial)
	if err != nil {
		return err
	}
	return info.CheckWrap(trial, answer)
}

// checkUnwraps has a vault unwrap a wrap that was encrypted to the public key that it
// publishes, and compares the result.
func (p *Policies) checkUnwraps(ctx context.Context, root keyhealth.Root, info rootkey.KeyInfo, wrapped, want []byte) error {
	opened, err := p.roots.Unwrap(ctx, root.Tenant, root.Principal, root.Key, wrapped)
	defer clear(opened)
	switch {
	case err != nil && rootkey.Classify(err) == rootkey.Rejected:
		return info.WrongKey(err)
	case err != nil:
		return err
	case subtle.ConstantTimeCompare(opened, want) != 1:
		return info.WrongKey(nil)
	}
	return nil
}

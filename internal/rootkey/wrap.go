package rootkey

import (
	"context"
	"crypto/rand"
	"crypto/subtle"

	"keyroll/internal/envelope"
)

// Keys uses customer keys, which stay in their vaults.
type Keys interface {
	Key(ctx context.Context, tenant int64, id Identity, kv envelope.KeyVersion) (KeyInfo, error)
	Wrap(ctx context.Context, tenant int64, id Identity, kv envelope.KeyVersion, plaintext []byte) ([]byte, error)
	Unwrap(ctx context.Context, tenant int64, id Identity, kv envelope.KeyVersion, wrapped []byte) ([]byte, error)
}

// Wrapper wraps by one customer key version, which a principal of the service uses for a
// tenant. No wrap that a vault makes leaves it.
type Wrapper struct {
	Keys   Keys
	Tenant int64
	By     Identity
	Key    envelope.KeyVersion
}

// WrapLocally wraps a bundle for the customer key and verifies that the vault unwraps
// the result to exactly the bundle. used is called after each use of the key.
func (w Wrapper) WrapLocally(ctx context.Context, bundle []byte, used func(act string, err error)) ([]byte, error) {
	info, err := w.Info(ctx)
	if err != nil {
		return nil, err
	}
	err = w.TryWrapKey(ctx, info, len(bundle))
	used("test wrap for", err)
	if err != nil {
		return nil, err
	}
	wrapped, err := info.Encrypt(bundle)
	if err != nil {
		return nil, err
	}
	err = w.CheckUnwraps(ctx, info, wrapped, bundle)
	used("unwrap", err)
	if err != nil {
		return nil, err
	}
	return wrapped, nil
}

// Info returns what the vault publishes about the key.
func (w Wrapper) Info(ctx context.Context) (KeyInfo, error) {
	return w.Keys.Key(ctx, w.Tenant, w.By, w.Key)
}

// TryWrapKey has the vault wrap random bytes, which proves the permission wrapKey.
// The answer is discarded: a vault may return anything as its wrap.
func (w Wrapper) TryWrapKey(ctx context.Context, info KeyInfo, size int) error {
	trial := make([]byte, size)
	rand.Read(trial)
	answer, err := w.Keys.Wrap(ctx, w.Tenant, w.By, w.Key, trial)
	if err != nil {
		return err
	}
	return info.CheckWrap(trial, answer)
}

// CheckUnwraps has the vault unwrap a wrap that was encrypted to the public key that it
// publishes, and compares the result.
func (w Wrapper) CheckUnwraps(ctx context.Context, info KeyInfo, wrapped, want []byte) error {
	opened, err := w.Keys.Unwrap(ctx, w.Tenant, w.By, w.Key, wrapped)
	defer clear(opened)
	switch {
	case err != nil && Classify(err) == Rejected:
		return info.WrongKey(err)
	case err != nil:
		return err
	case subtle.ConstantTimeCompare(opened, want) != 1:
		return info.WrongKey(nil)
	}
	return nil
}

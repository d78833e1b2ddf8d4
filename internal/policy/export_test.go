package policy

import (
	"context"

	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

// Cached returns the cache's own copy of a policy key, nil if it has none.
func (p *Policies) Cached(id int64) *envelope.Key {
	return p.cache.PeekForTests(id)
}

// StoreVaultMade replaces both customer wraps of a policy key by ones that the vaults
// made, as earlier versions stored them.
func (p *Policies) StoreVaultMade(ctx context.Context, tx *store.Tx, tenant, policyKey int64, primary, secondary []byte) error {
	r, err := keptRevision(ctx, tx, tenant, policyKey)
	if err != nil {
		return err
	}
	r.WrapPrimary, r.WrapSecondary = primary, secondary
	_, err = tx.Exec(ctx, `UPDATE revision SET wrap_primary = ?3, wrap_secondary = ?4, mac = ?5, primary_local = 0, secondary_local = 0
		WHERE tenant = ?1 AND guid = ?2`, tenant, r.ID.String(), primary, secondary, r.Revision.MAC(p.revisionKey))
	return err
}

// BundleOf returns the plaintext of the wraps of a policy key.
func (p *Policies) BundleOf(ctx context.Context, tx *store.Tx, tenant, policyKey int64, key *envelope.Key) ([]byte, error) {
	r, err := keptRevision(ctx, tx, tenant, policyKey)
	return envelope.Bundle(key, r.Binding), err
}

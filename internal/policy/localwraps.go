package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fault"
	"keyroll/internal/lease"
	"keyroll/internal/profiles"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
)

// ReplaceVaultMade replaces every wrap of a policy key that an external vault made, which
// earlier versions stored unchecked, by one that keyroll makes (rootkey.Wrapper). A wrap is
// replaced in place, in a transaction of its own; if its vault is unavailable or refuses,
// the wrap stays, and the error names it.
func (p *Policies) ReplaceVaultMade(ctx context.Context) error {
	var rows []revisionRow
	err := p.db.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = selectVaultMade(ctx, tx, ``)
		return err
	})
	if err != nil {
		return err
	}
	ctx = audit.WithOrigin(ctx, audit.Origin{Operation: JobLocalWrap, Request: "schedule", System: true})
	var left []error
	for _, r := range rows {
		for _, root := range customerRoots(profiles.Of(r.Kind), r) {
			if !r.vaultMade(root) {
				continue
			}
			replaced, err := p.replaceVaultMade(ctx, r, root)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				left = append(left, fmt.Errorf("policy %q: %w", r.PolicyName, err))
				continue
			}
			if !replaced {
				break // the revision was changed meanwhile: the next pass replaces it
			}
			if r, err = p.authentic(ctx, r.Tenant, r.Binding.PolicyKey); err != nil {
				left = append(left, fmt.Errorf("policy %q: %w", r.PolicyName, err))
				break
			}
		}
	}
	return errors.Join(left...) // only for the log
}

// replaceVaultMade replaces a wrap that a vault made by one that keyroll makes, unless the
// revision was changed meanwhile.
func (p *Policies) replaceVaultMade(ctx context.Context, r revisionRow, root root) (replaced bool, err error) {
	if err := p.check(r); err != nil {
		return false, err
	}
	key, err := p.unwrapCustomer(ctx, r.Tenant, profiles.Of(r.Kind), r)
	if err != nil {
		return false, err
	}
	defer key.Zero()
	bundle := envelope.Bundle(key, r.Binding)
	defer clear(bundle)
	var uses []audit.Entry
	wrapped, err := p.wrapperOf(r.rootOf(r.Tenant, root.kv)).WrapLocally(ctx, bundle, func(act string, err error) {
		uses = append(uses, p.use(r.Tenant, r.Revision, act, root, err))
	})
	if recorded := p.record(ctx, uses...); err == nil {
		err = recorded
	}
	if err != nil {
		return false, err
	}
	next := r.Revision
	column := "primary"
	if root.name == "primary" {
		next.WrapPrimary = wrapped
	} else {
		next.WrapSecondary, column = wrapped, "secondary"
	}
	replacement := p.use(r.Tenant, r.Revision, "replace the vault's wrap of", root, nil)
	if !hasFormOf(root.wrap, wrapped, bundle) {
		replacement.Outcome = string(api.Damaged)
		replacement.Detail += "; it was no encryption: anyone who has read the database may know this policy key"
	}
	fault.Point("localwrap.before-commit")
	err = lease.InTx(ctx, p.db, func(tx *store.Tx) error {
		if err := tx.Lock(ctx, r.Policy, true); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `UPDATE revision SET wrap_`+column+` = ?3, `+column+`_local = 1, mac = ?4
			WHERE tenant = ?1 AND guid = ?2 AND erased = 0 AND mac = ?5`, r.Tenant, r.ID.String(), wrapped, next.MAC(p.revisionKey), r.MAC)
		if replaced = n == 1; err != nil || !replaced {
			return err
		}
		return p.recordIn(ctx, tx, []audit.Entry{replacement})
	})
	if err != nil {
		return false, err
	}
	fault.Point("localwrap.after-commit")
	if replaced && replacement.Outcome == string(api.Damaged) {
		p.logger.ErrorContext(ctx, "a stored wrap that a vault had returned was not an encryption of the policy key; it has been replaced. Give the policy a new key: refresh it at depth policy or deeper",
			"policy", r.Binding.Policy, "key", p.roots.URI(root.kv))
	}
	return replaced, nil
}

// hasFormOf reports whether a stored wrap has the form of the one that replaces it.
func hasFormOf(stored, wrapped, bundle []byte) bool {
	return len(stored) == len(wrapped) && !strings.Contains(string(stored), string(bundle))
}

// vaultMade reports whether an external vault made the wrap of a revision by one of
// its customer keys.
func (r revisionRow) vaultMade(root root) bool {
	local := r.LocalPrimary
	if root.name == "secondary" {
		local = r.LocalSecondary
	}
	return !local && rootkey.IsExternal(root.kv.Vault)
}

// VaultMade is a stored wrap that an external vault made.
type VaultMade struct {
	Revision string // its GUID
	Key      string // URI of the customer key version
}

// VaultMade returns the stored wraps of a tenant that external vaults made.
func (p *Policies) VaultMade(ctx context.Context, tx *store.Tx, tenant int64) (list []VaultMade, err error) {
	rows, err := selectVaultMade(ctx, tx, ` AND r.tenant = ?1`, tenant)
	for _, r := range rows {
		for _, root := range customerRoots(profiles.Of(r.Kind), r) {
			if r.vaultMade(root) {
				list = append(list, VaultMade{r.ID.String(), p.roots.URI(root.kv)})
			}
		}
	}
	return list, err
}

// selectVaultMade returns the kept revisions with a wrap that is not known to be
// local; those of embedded vaults are among them.
func selectVaultMade(ctx context.Context, tx *store.Tx, and string, args ...any) ([]revisionRow, error) {
	return selectRevisions(ctx, tx, `r.erased = 0 AND r.primary_key_name <> '' AND (r.primary_local = 0 OR r.secondary_local = 0)`+and+` ORDER BY r.id`, args...)
}

package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fault"
	"keyroll/internal/lease"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
)

// WrapReplacer replaces the wraps of policy keys that external vaults made, which
// earlier versions stored unchecked, by ones that keyroll makes (wrapLocally). A wrap
// is replaced in place, in a transaction of its own; if its vault is unavailable or
// refuses, the wrap stays and is tried again.
type WrapReplacer struct {
	*Policies
	Leases *lease.Leases // of this node; nil: it is the only node
}

// How long after a pass the next one begins: nodes of an earlier version may
// still store wraps that vaults made.
const (
	wrapInterval = 24 * time.Hour
	wrapRetry    = time.Hour       // if one could not be replaced
	wrapPoll     = 2 * time.Second // while another node, which may die, makes a pass
)

// Run makes a pass at once and then repeats it, until ctx is done.
func (w *WrapReplacer) Run(ctx context.Context) {
	for {
		wait := wrapInterval
		held, err := w.Leases.Hold(ctx, "local wraps", w.runOnce)
		if err != nil && ctx.Err() == nil {
			wait = wrapRetry
			w.logger.WarnContext(ctx, "not all wraps that external vaults made could be replaced; retrying", "after", wait, "error", err)
		}
		if err == nil && !held {
			wait = wrapPoll
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// runOnce replaces every wrap that it can. Its error names the others.
func (w *WrapReplacer) runOnce(ctx context.Context) error {
	var rows []revisionRow
	err := w.db.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = selectVaultMade(ctx, tx, ``)
		return err
	})
	if err != nil {
		return err
	}
	ctx = audit.WithOrigin(ctx, audit.Origin{Operation: JobLocalWrap, Request: "schedule", System: true})
	var left []error
	for _, r := range rows {
		for _, root := range customerRoots(ProfileOf(r.Kind), r) {
			if !r.vaultMade(root) {
				continue
			}
			replaced, err := w.replace(ctx, r, root)
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
			if r, err = w.authentic(ctx, r.Tenant, r.Binding.PolicyKey); err != nil {
				left = append(left, fmt.Errorf("policy %q: %w", r.PolicyName, err))
				break
			}
		}
	}
	return errors.Join(left...) // only for the log
}

// replace replaces a wrap that a vault made by one that keyroll makes, unless the
// revision was changed meanwhile.
func (w *WrapReplacer) replace(ctx context.Context, r revisionRow, root root) (replaced bool, err error) {
	if err := w.check(r); err != nil {
		return false, err
	}
	key, err := w.unwrapCustomer(ctx, r.Tenant, ProfileOf(r.Kind), r)
	if err != nil {
		return false, err
	}
	defer key.Zero()
	bundle := envelope.Bundle(key, r.Binding)
	defer clear(bundle)
	var uses []audit.Entry
	wrapped, err := w.wrapLocally(ctx, r.rootOf(r.Tenant, root.kv), bundle, func(act string, err error) {
		uses = append(uses, w.use(r.Tenant, r.Revision, act, root.name, root.kv, err))
	})
	if recorded := w.record(ctx, uses...); err == nil {
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
	replacement := w.use(r.Tenant, r.Revision, "replace the vault's wrap of", root.name, root.kv, nil)
	if !hasFormOf(root.wrap, wrapped, bundle) {
		replacement.Outcome = string(api.Damaged)
		replacement.Detail += "; it was no encryption: anyone who has read the database may know this policy key"
	}
	fault.Point("localwrap.before-commit")
	err = lease.InTx(ctx, w.db, func(tx *store.Tx) error {
		if err := tx.Lock(ctx, r.Policy, true); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `UPDATE revision SET wrap_`+column+` = ?3, `+column+`_local = 1, mac = ?4
			WHERE tenant = ?1 AND guid = ?2 AND erased = 0 AND mac = ?5`, r.Tenant, r.ID.String(), wrapped, next.MAC(w.revisionKey), r.MAC)
		if replaced = n == 1; err != nil || !replaced {
			return err
		}
		return w.recordIn(ctx, tx, []audit.Entry{replacement})
	})
	if err != nil {
		return false, err
	}
	fault.Point("localwrap.after-commit")
	if replaced && replacement.Outcome == string(api.Damaged) {
		w.logger.ErrorContext(ctx, "a stored wrap that a vault had returned was not an encryption of the policy key; it has been replaced. Give the policy a new key: refresh it at depth policy or deeper",
			"policy", r.Binding.Policy, "key", w.roots.URI(root.kv))
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
		for _, root := range customerRoots(ProfileOf(r.Kind), r) {
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

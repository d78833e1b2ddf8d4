package access

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// ExternalVaults lists the external vaults that a tenant may use. keyroll uses them with the
// same identity for all tenants, so the operator assigns them to tenants.
type ExternalVaults struct {
	Directories []string // GUIDs of Entra directories, all of whose vaults it may use
	Vaults      []string // URLs of vaults
}

const (
	externalDirectory = "directory"
	externalVault     = "vault"
	// maxExternal bounds the entries of a tenant.
	maxExternal = 1000
	// externalLock is held while entries are registered, because a directory belongs to
	// one tenant.
	externalLock = 1
)

const (
	selectExternal = `SELECT kind, name FROM outside WHERE tenant = ?1 ORDER BY kind, name`
	selectUsers    = `SELECT tenant FROM outside WHERE kind = 'vault' AND name = ?1 OR kind = 'directory' AND name = ?2 ORDER BY tenant`
	selectOwners   = `SELECT tenant FROM outside WHERE kind = 'directory' AND name = ?1 ORDER BY tenant`
	insertExternal = `INSERT INTO outside (tenant, kind, name, created) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (tenant, kind, name) DO NOTHING`
	deleteExternal = `DELETE FROM outside WHERE tenant = ?1 AND kind = ?2 AND name = ?3`
)

// ExternalVaults returns the external vaults that a tenant may use.
func (d *Directory) ExternalVaults(ctx context.Context, tx *store.Tx, tenant int64) (o ExternalVaults, err error) {
	rows, err := store.Collect(ctx, tx, func(row store.Scanner) (pair [2]string, err error) {
		err = row.Scan(&pair[0], &pair[1])
		return pair, err
	}, selectExternal, tenant)
	if err != nil {
		return o, fmt.Errorf("read the external vaults of tenant %d: %w", tenant, err)
	}
	for _, r := range rows {
		if r[0] == externalDirectory {
			o.Directories = append(o.Directories, r[1])
		} else {
			o.Vaults = append(o.Vaults, r[1])
		}
	}
	return o, nil
}

// SetExternal adds and removes external vaults that a tenant may use. It fails with
// Conflict for a directory of another tenant.
func (d *Directory) SetExternal(ctx context.Context, tx *store.Tx, tenant int64, add, remove ExternalVaults) error {
	removed, err := remove.entries()
	if err != nil {
		return err
	}
	added, err := add.entries()
	if err != nil {
		return err
	}
	if err := tx.Lock(ctx, externalLock, true); err != nil {
		return err
	}
	for _, e := range removed {
		if _, err := tx.Exec(ctx, deleteExternal, tenant, e.kind, e.name); err != nil {
			return fmt.Errorf("remove %s %s: %w", e.kind, e.name, err)
		}
	}
	for _, e := range added {
		if err := checkOwner(ctx, tx, tenant, e); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, insertExternal, tenant, e.kind, e.name, d.now().UnixMilli()); err != nil {
			return fmt.Errorf("register %s %s: %w", e.kind, e.name, err)
		}
	}
	now, err := d.ExternalVaults(ctx, tx, tenant)
	if err == nil && len(now.Directories)+len(now.Vaults) > maxExternal {
		err = fail.New(api.InvalidArgument, "a tenant has at most %d directories and vaults", maxExternal)
	}
	return err
}

// entry is a row of the table outside.
type entry struct{ kind, name string }

// entries returns the rows for the given directories and vaults, with normalised names.
func (o ExternalVaults) entries() (list []entry, err error) {
	for _, given := range o.Directories {
		guid, err := uuid.Parse(given)
		if err != nil {
			return nil, fail.New(api.InvalidArgument, "%.80q is not the GUID of an Entra directory", given)
		}
		list = append(list, entry{externalDirectory, guid.String()})
	}
	for _, given := range o.Vaults {
		name, err := vaultURL(given)
		if err != nil {
			return nil, err
		}
		list = append(list, entry{externalVault, name})
	}
	return list, nil
}

// checkOwner refuses a directory that is registered for another tenant.
func checkOwner(ctx context.Context, tx *store.Tx, tenant int64, e entry) error {
	if e.kind != externalDirectory {
		return nil
	}
	owners, err := tx.IDs(ctx, selectOwners, e.name)
	if err == nil && slices.ContainsFunc(owners, func(id int64) bool { return id != tenant }) {
		err = fail.New(api.Conflict, "Entra directory %s is registered for another tenant, which may use all its vaults", e.name).
			WithHint("register the vaults of each tenant: keyroll tenant set --vault")
	}
	return err
}

// vaultURL normalises a vault's URL to the form that policies use.
func vaultURL(given string) (string, error) {
	u, err := url.Parse(strings.ToLower(given))
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fail.New(api.InvalidArgument, "%.300q is not the URL of a vault, such as https://contoso-a1.vault.azure.net", given)
	}
	return "https://" + u.Host, nil
}

// CheckExternal refuses a vault that a tenant may not use: neither the vault nor the
// directory that issues its tokens is registered for the tenant.
func (d *Directory) CheckExternal(ctx context.Context, tenant int64, vault, directory string) error {
	vault, directory = strings.ToLower(vault), strings.ToLower(directory)
	var owners []int64
	err := d.db.View(ctx, func(tx *store.Tx) (err error) {
		owners, err = tx.IDs(ctx, selectUsers, vault, directory)
		return err
	})
	if err != nil {
		return err
	}
	if slices.Contains(owners, tenant) {
		return nil
	}
	return fail.New(api.Forbidden, "vault %s is in Entra directory %s, and neither is registered for this tenant", vault, directory).
		WithHint("the operator registers it: keyroll tenant set TENANT --directory %s, or --vault %s for only this vault", directory, vault)
}

package vault

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/store"
	"keyroll/internal/vault/azure"
)

const (
	vaultColumns = `id, tenant, name, subscription, resource_group, location, sku, retention_days, purge_protection, tags,
		created, updated, deleted, purge_at,
		(SELECT COUNT(*) FROM vault_registration r WHERE r.tenant = vault.tenant AND r.subscription = vault.subscription
			AND r.name = '` + retentionFeature + `')`
	insertVaultSQL = `INSERT INTO vault (id, tenant, name, name_folded, subscription, resource_group, location, sku,
		retention_days, purge_protection, tags, created, updated, deleted, purge_at)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, 0)`
	updateVaultSQL = `UPDATE vault SET sku = ?2, purge_protection = ?3, tags = ?4, updated = ?5, deleted = ?6, purge_at = ?7
		WHERE id = ?1`
	deleteVaultSQL = `DELETE FROM vault WHERE id = ?1`
	findVaultSQL   = `SELECT ` + vaultColumns + ` FROM vault WHERE name_folded = ?1`
	listVaultsSQL  = `SELECT ` + vaultColumns + ` FROM vault WHERE tenant = ?1 AND name_folded > ?2
		AND subscription = ?4 AND deleted = 0 ORDER BY name_folded LIMIT ?3`
	listGroupSQL = `SELECT ` + vaultColumns + ` FROM vault WHERE tenant = ?1 AND name_folded > ?2
		AND subscription = ?4 AND deleted = 0 AND lower(resource_group) = ?5 ORDER BY name_folded LIMIT ?3`
	listDeletedVaultsSQL = `SELECT ` + vaultColumns + ` FROM vault WHERE tenant = ?1 AND name_folded > ?2
		AND subscription = ?4 AND deleted <> 0 AND purge_at > ?5 ORDER BY name_folded LIMIT ?3`

	findGrantSQL = `SELECT permissions FROM vault_permission WHERE vault = ?1 AND principal = ?2`
	putGrantSQL  = `INSERT INTO vault_permission (vault, tenant, principal, permissions) VALUES (?1, ?2, ?3, ?4)
		ON CONFLICT (vault, principal) DO UPDATE SET permissions = excluded.permissions`
	deleteGrantSQL  = `DELETE FROM vault_permission WHERE vault = ?1 AND principal = ?2`
	deleteGrantsSQL = `DELETE FROM vault_permission WHERE vault = ?1`
	listGrantsSQL   = `SELECT principal, permissions FROM vault_permission WHERE vault = ?1 ORDER BY principal`

	findKeySQL   = `SELECT id, tenant, vault, name, latest, deleted, purge_at FROM vault_key WHERE vault = ?1 AND name_folded = ?2`
	insertKeySQL = `INSERT INTO vault_key (id, tenant, vault, name, name_folded, latest, deleted, purge_at)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0)`
	setLatestSQL  = `UPDATE vault_key SET latest = ?2 WHERE id = ?1`
	setDeletedSQL = `UPDATE vault_key SET deleted = ?2, purge_at = ?3 WHERE id = ?1`
	// A deletion finds the row by its id and compares the column that an index was
	// used for.
	deleteKeySQL     = `DELETE FROM vault_key WHERE id = ?1 AND +vault = ?2`
	deleteVersionSQL = `DELETE FROM vault_key_version WHERE id = ?1 AND +vault_key = ?2`
	expiredKeysSQL   = `SELECT id FROM vault_key WHERE vault = ?1 AND deleted <> 0 AND purge_at <= ?2`
	keysOfVaultSQL   = `SELECT id FROM vault_key WHERE vault = ?1`

	versionColumns = `v.id, v.tenant, v.vault_key, v.number, v.version, v.type, v.operations, v.enabled,
		v.not_before, v.expires, v.tags, v.created, v.updated, v.public, v.sealed`
	insertVersionSQL = `INSERT INTO vault_key_version (id, tenant, vault_key, number, version, type, operations,
		enabled, not_before, expires, tags, created, updated, public, sealed)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)`
	updateVersionSQL = `UPDATE vault_key_version SET operations = ?2, enabled = ?3, not_before = ?4, expires = ?5,
		tags = ?6, updated = ?7 WHERE id = ?1`
	versionIDsSQL   = `SELECT id FROM vault_key_version WHERE vault_key = ?1`
	findVersionSQL  = `SELECT ` + versionColumns + ` FROM vault_key_version v WHERE v.vault_key = ?1 AND v.version = ?2`
	findLatestSQL   = `SELECT ` + versionColumns + ` FROM vault_key_version v WHERE v.vault_key = ?1 AND v.number = ?2`
	listVersionsSQL = `SELECT ` + versionColumns + ` FROM vault_key_version v WHERE v.vault_key = ?1 AND v.number > ?2
		ORDER BY v.number LIMIT ?3`
	listedSQL = `SELECT k.id, k.tenant, k.vault, k.name, k.latest, k.deleted, k.purge_at, ` + versionColumns + `
		FROM vault_key k JOIN vault_key_version v ON v.vault_key = k.id AND v.number = k.latest
		WHERE k.vault = ?1 AND k.name_folded > ?2`
	listKeysSQL        = listedSQL + ` AND k.deleted = 0 ORDER BY k.name_folded LIMIT ?3`
	listDeletedKeysSQL = listedSQL + ` AND k.deleted <> 0 AND k.purge_at > ?4 ORDER BY k.name_folded LIMIT ?3`
)

func execute(ctx context.Context, tx *store.Tx, query string, args ...any) error {
	_, err := tx.Exec(ctx, query, args...)
	return err
}

func tagsText(tags map[string]string) string {
	text, _ := json.Marshal(tags) // strings always marshal
	return string(text)
}

func scanVault(row store.Scanner) (v vault, err error) {
	var tags string
	var protecting int64
	err = row.Scan(&v.id, &v.tenant, &v.name, &v.subscription, &v.group, &v.location, &v.sku, &v.retentionDays, &v.purgeProtection,
		&tags, &v.created, &v.updated, &v.deleted, &v.purgeAt, &protecting)
	if err != nil {
		return vault{}, err
	}
	v.protected = protecting > 0
	err = json.Unmarshal([]byte(tags), &v.tags)
	return v, err
}

// findVault returns the vault of that name, deleted or not.
func findVault(ctx context.Context, tx *store.Tx, name string) (vault, error) {
	v, err := scanVault(tx.QueryRow(ctx, findVaultSQL, strings.ToLower(name)))
	if errors.Is(err, sql.ErrNoRows) {
		err = vaultNotFound(name)
	}
	return v, err
}

func insertVault(ctx context.Context, tx *store.Tx, v vault) error {
	return execute(ctx, tx, insertVaultSQL, v.id, v.tenant, v.name, strings.ToLower(v.name), v.subscription, v.group, v.location, v.sku,
		v.retentionDays, v.purgeProtection, tagsText(v.tags), v.created, v.updated)
}

func updateVault(ctx context.Context, tx *store.Tx, v vault) error {
	return execute(ctx, tx, updateVaultSQL, v.id, v.sku, v.purgeProtection, tagsText(v.tags), v.updated, v.deleted, v.purgeAt)
}

// deleteVaultRows destroys a vault and everything in it.
func deleteVaultRows(ctx context.Context, tx *store.Tx, v vault) error {
	keys, err := tx.IDs(ctx, keysOfVaultSQL, v.id)
	if err != nil {
		return err
	}
	for _, id := range keys {
		if err := deleteKeyRows(ctx, tx, key{id: id, vault: v.id}); err != nil {
			return err
		}
	}
	if err := deleteGrants(ctx, tx, v.id); err != nil {
		return err
	}
	return execute(ctx, tx, deleteVaultSQL, v.id)
}

func findGrant(ctx context.Context, tx *store.Tx, vault int64, principal uuid.UUID) ([]string, error) {
	var text string
	err := tx.QueryRow(ctx, findGrantSQL, vault, principal.String()).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return strings.Fields(text), err
}

// putGrant sets the permissions of a principal; without any the principal is removed
// from the policy.
func putGrant(ctx context.Context, tx *store.Tx, vault vault, g grant) error {
	if len(g.permissions) == 0 {
		return execute(ctx, tx, deleteGrantSQL, vault.id, g.principal.String())
	}
	return execute(ctx, tx, putGrantSQL, vault.id, vault.tenant, g.principal.String(), strings.Join(g.permissions, " "))
}

func deleteGrants(ctx context.Context, tx *store.Tx, vault int64) error {
	return execute(ctx, tx, deleteGrantsSQL, vault)
}

func listGrants(ctx context.Context, tx *store.Tx, vault int64) ([]grant, error) {
	return store.Collect(ctx, tx, func(row store.Scanner) (g grant, err error) {
		var id, text string
		if err = row.Scan(&id, &text); err != nil {
			return g, err
		}
		g.permissions = strings.Fields(text)
		g.principal, err = uuid.Parse(id)
		return g, err
	}, listGrantsSQL, vault)
}

func (k *key) columns() []any {
	return []any{&k.id, &k.tenant, &k.vault, &k.name, &k.latest, &k.deleted, &k.purgeAt}
}

// findKey returns the key of that name, deleted or not, and whether there is one.
func findKey(ctx context.Context, tx *store.Tx, vault int64, name string) (key, bool, error) {
	var k key
	err := tx.QueryRow(ctx, findKeySQL, vault, strings.ToLower(name)).Scan(k.columns()...)
	if errors.Is(err, sql.ErrNoRows) {
		return key{}, false, nil
	}
	if err == nil && (k.vault != vault || !strings.EqualFold(k.name, name)) {
		err = store.Contradiction("key %d is key %q of vault %d only according to an index", k.id, name, vault)
	}
	return k, err == nil, err
}

func insertKey(ctx context.Context, tx *store.Tx, k key) error {
	return execute(ctx, tx, insertKeySQL, k.id, k.tenant, k.vault, k.name, strings.ToLower(k.name), k.latest)
}

func setLatest(ctx context.Context, tx *store.Tx, k key) error {
	return execute(ctx, tx, setLatestSQL, k.id, k.latest)
}

func setDeleted(ctx context.Context, tx *store.Tx, k key) error {
	return execute(ctx, tx, setDeletedSQL, k.id, k.deleted, k.purgeAt)
}

func deleteKeyRows(ctx context.Context, tx *store.Tx, k key) error {
	versions, err := versionIDs(ctx, tx, k)
	if err != nil {
		return err
	}
	args := make([][]any, len(versions))
	for i, id := range versions {
		args[i] = []any{id, k.id}
	}
	if err := tx.DeleteRows(ctx, deleteVersionSQL, args, fmt.Sprintf("a version of key %d", k.id)); err != nil {
		return err
	}
	return tx.DeleteRows(ctx, deleteKeySQL, [][]any{{k.id, k.vault}}, fmt.Sprintf("a key of vault %d", k.vault))
}

func purgeExpiredKeys(ctx context.Context, tx *store.Tx, vault, now int64) error {
	expired, err := tx.IDs(ctx, expiredKeysSQL, vault, now)
	if err != nil {
		return err
	}
	for _, id := range expired {
		if err := deleteKeyRows(ctx, tx, key{id: id, vault: vault}); err != nil {
			return err
		}
	}
	return nil
}

func insertVersion(ctx context.Context, tx *store.Tx, v version) error {
	return execute(ctx, tx, insertVersionSQL, v.id, v.tenant, v.key, v.number, v.version, v.kind,
		strings.Join(v.operations, " "), v.enabled, v.notBefore, v.expire, tagsText(v.tags), v.created, v.updated,
		v.public, v.sealed)
}

func updateVersion(ctx context.Context, tx *store.Tx, v version) error {
	return execute(ctx, tx, updateVersionSQL, v.id, strings.Join(v.operations, " "), v.enabled, v.notBefore, v.expire,
		tagsText(v.tags), v.updated)
}

func versionIDs(ctx context.Context, tx *store.Tx, k key) ([]int64, error) {
	return tx.IDs(ctx, versionIDsSQL, k.id)
}

// scanVersion scans a version's columns, after those of its key if there are any.
func scanVersion(row store.Scanner, k key, keyColumns ...any) (keyWithVersion, error) {
	var v version
	var operations, tags string
	err := row.Scan(append(keyColumns, &v.id, &v.tenant, &v.key, &v.number, &v.version, &v.kind, &operations,
		&v.enabled, &v.notBefore, &v.expire, &tags, &v.created, &v.updated, &v.public, &v.sealed)...)
	if err != nil {
		return keyWithVersion{}, err
	}
	v.operations = strings.Fields(operations)
	err = json.Unmarshal([]byte(tags), &v.tags)
	return keyWithVersion{k, v}, err
}

// findVersion returns a version of k, the newest if version is empty.
func findVersion(ctx context.Context, tx *store.Tx, k key, name string) (version, error) {
	query, which := findLatestSQL, any(k.latest)
	if name != "" {
		query, which = findVersionSQL, name
	}
	l, err := scanVersion(tx.QueryRow(ctx, query, k.id, which), k)
	if errors.Is(err, sql.ErrNoRows) {
		err = azure.Refuse(api.NotFound, "KeyNotFound", "", "key %q has no version %s", k.name, name)
	}
	return l.version, err
}

func selectVersions(ctx context.Context, tx *store.Tx, k key, after int64, limit int) ([]keyWithVersion, error) {
	return store.Collect(ctx, tx, func(row store.Scanner) (keyWithVersion, error) { return scanVersion(row, k) },
		listVersionsSQL, k.id, after, limit)
}

func scanKey(row store.Scanner) (keyWithVersion, error) {
	var k key
	l, err := scanVersion(row, key{}, k.columns()...)
	l.key = k
	return l, err
}

func selectKeys(ctx context.Context, tx *store.Tx, vault int64, after string, limit int) ([]keyWithVersion, error) {
	return store.Collect(ctx, tx, scanKey, listKeysSQL, vault, strings.ToLower(after), limit)
}

package vault

import (
	"context"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/vault/azure"
)

func (c *call) deletion(k key) deletion {
	if k.deleted == 0 {
		return deletion{}
	}
	return deletion{
		RecoveryID:  c.base + "/deletedkeys/" + k.name,
		DeletedDate: k.deleted / 1000, ScheduledPurge: k.purgeAt / 1000,
	}
}

// deleteKey deletes a key with all its versions. It is kept for the vault's retention
// and can be recovered or purged until then.
func (v *Vaults) deleteKey(ctx context.Context, c *call) (any, error) {
	now := v.now()
	return v.changeDeletion(ctx, c, func(tx *store.Tx) (key, error) {
		k, err := liveKey(ctx, tx, c.vault, c.path["name"])
		k.deleted, k.purgeAt = now.UnixMilli(), c.vault.endOfRetention(now)
		return k, err
	})
}

// recoverKey restores a deleted key unchanged.
func (v *Vaults) recoverKey(ctx context.Context, c *call) (any, error) {
	return v.changeDeletion(ctx, c, func(tx *store.Tx) (key, error) {
		k, err := v.deletedKey(ctx, tx, c)
		k.deleted, k.purgeAt = 0, 0
		return k, err
	})
}

// changeDeletion deletes or recovers a key, and returns its newest version.
func (v *Vaults) changeDeletion(ctx context.Context, c *call, change func(*store.Tx) (key, error)) (any, error) {
	var k key
	var newest version
	var ids []int64
	err := v.inLockedVault(ctx, c.vault, func(tx *store.Tx) (err error) {
		if k, err = change(tx); err != nil {
			return err
		}
		if newest, err = findVersion(ctx, tx, k, ""); err != nil {
			return err
		}
		if ids, err = versionIDs(ctx, tx, k); err != nil {
			return err
		}
		return setDeleted(ctx, tx, k)
	})
	v.opened.Drop(ids...) // also if the answer of the commit was lost
	if err != nil {
		return nil, err
	}
	return c.bundle(k, newest)
}

// getDeletedKey returns a deleted key's newest version.
func (v *Vaults) getDeletedKey(ctx context.Context, c *call) (any, error) {
	var k key
	var newest version
	err := v.db.View(ctx, func(tx *store.Tx) (err error) {
		if k, err = v.deletedKey(ctx, tx, c); err != nil {
			return err
		}
		newest, err = findVersion(ctx, tx, k, "")
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.bundle(k, newest)
}

// listDeletedKeys lists the deleted keys that can still be recovered.
func (v *Vaults) listDeletedKeys(ctx context.Context, c *call) (any, error) {
	return v.list(ctx, c, "deletedkeys", func(tx *store.Tx, after string, limit int) ([]keyWithVersion, error) {
		return store.Collect(ctx, tx, scanKey, listDeletedKeysSQL, c.vault.id, strings.ToLower(after), limit, v.now().UnixMilli())
	}, func(l keyWithVersion) (string, string) { return l.key.name, "" })
}

// purgeKey destroys a deleted key before its retention ends, unless the vault
// has purge protection.
func (v *Vaults) purgeKey(ctx context.Context, c *call) (any, error) {
	return nil, v.inLockedVault(ctx, c.vault, func(tx *store.Tx) error {
		k, err := v.deletedKey(ctx, tx, c)
		if err != nil {
			return err
		}
		if c.vault.purgeProtection {
			return fail.New(api.Forbidden, "purge of key %q is not allowed: vault %q has purge protection", k.name, c.vault.name).
				WithHint("the key is purged when its retention ends")
		}
		return deleteKeyRows(ctx, tx, k)
	})
}

// deletedKey returns a deleted key whose retention has not ended.
func (v *Vaults) deletedKey(ctx context.Context, tx *store.Tx, c *call) (key, error) {
	k, ok, err := findKey(ctx, tx, c.vault.id, c.path["name"])
	if err == nil && (!ok || k.deleted == 0 || k.purgeAt <= v.now().UnixMilli()) {
		err = azure.Refuse(api.NotFound, "KeyNotFound", "", "vault %q has no deleted key %q", c.vault.name, c.path["name"])
	}
	return k, err
}

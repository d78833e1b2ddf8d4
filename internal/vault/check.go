package vault

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// checkBatch is how many key versions are read at a time.
const checkBatch = 100

// checkedSQL reads the versions of a tenant with the names of their keys and
// vaults; the names are empty if the key or the vault does not exist.
const checkedSQL = `SELECT COALESCE(a.name, ''), COALESCE(k.vault, 0), COALESCE(k.name, ''), ` + versionColumns + `
	FROM vault_key_version v LEFT JOIN vault_key k ON k.id = v.vault_key LEFT JOIN vault a ON a.id = k.vault
	WHERE v.tenant = ?1 AND v.id > ?2 ORDER BY v.id LIMIT ?3`

// CheckKeys decrypts the private key of every key version in the vaults of a tenant,
// including deleted ones and those that no policy uses. It reports each damaged one
// with vault, key and version, and returns how many are sound.
func (v *Vaults) CheckKeys(ctx context.Context, tenant int64, damaged func(id string, err error) error) (sound int64, err error) {
	type checked struct {
		vaultName, keyName string
		vault              int64
		version
	}
	for after := int64(0); ; {
		var list []checked
		err := v.db.View(ctx, func(tx *store.Tx) (err error) {
			list, err = store.Collect(ctx, tx, func(row store.Scanner) (c checked, err error) {
				l, err := scanVersion(row, key{}, &c.vaultName, &c.vault, &c.keyName)
				c.version = l.version
				return c, err
			}, checkedSQL, tenant, after, checkBatch)
			return err
		})
		if err != nil || len(list) == 0 {
			return sound, err
		}
		for _, c := range list {
			after = c.id
			_, err := v.openPrivate(c.vault, c.version)
			switch {
			case err == nil:
				sound++
				continue
			case !fail.Is(err, api.Damaged):
				return sound, err
			}
			err = damaged(fmt.Sprintf("%s/%s/%s", c.vaultName, c.keyName, c.version.version), err)
			if err != nil {
				return sound, err
			}
		}
	}
}

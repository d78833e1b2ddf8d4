package vaults

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/internal/cmdlet"
)

// CreateKey makes a key, or a new version of one.
func (c *Client) CreateKey(ctx context.Context, vault, name string, spec cmdlet.KeySpec) (cmdlet.Key, error) {
	parameters := azkeys.CreateKeyParameters{
		Kty:           to.Ptr(azkeys.KeyType(spec.Type)),
		KeyOps:        operations(spec.Operations),
		KeyAttributes: attributes(spec),
	}
	if spec.Size != 0 {
		parameters.KeySize = &spec.Size
	}
	return onKey(ctx, c, vault, name, func(v *azkeys.Client) (azkeys.KeyBundle, error) {
		r, err := v.CreateKey(ctx, name, parameters, nil)
		return r.KeyBundle, err
	})
}

// ShowKey shows one version of a key, or the newest.
func (c *Client) ShowKey(ctx context.Context, vault, name, version string) (cmdlet.Key, error) {
	return onKey(ctx, c, vault, name, func(v *azkeys.Client) (azkeys.KeyBundle, error) {
		r, err := v.GetKey(ctx, name, version, nil)
		return r.KeyBundle, err
	})
}

// UpdateKey changes the attributes and operations that spec names.
func (c *Client) UpdateKey(ctx context.Context, vault, name, version string, spec cmdlet.KeySpec) (cmdlet.Key, error) {
	return onKey(ctx, c, vault, name, func(v *azkeys.Client) (azkeys.KeyBundle, error) {
		r, err := v.UpdateKey(ctx, name, version,
			azkeys.UpdateKeyParameters{KeyAttributes: attributes(spec), KeyOps: operations(spec.Operations)}, nil)
		return r.KeyBundle, err
	})
}

// RemoveKey deletes a key; it stays recoverable.
func (c *Client) RemoveKey(ctx context.Context, vault, name string) (cmdlet.Key, error) {
	return onKey(ctx, c, vault, name, func(v *azkeys.Client) (azkeys.KeyBundle, error) {
		r, err := v.DeleteKey(ctx, name, nil)
		return azkeys.KeyBundle{Key: r.Key, Attributes: r.Attributes}, err
	})
}

// ShowDeletedKey shows the newest version of a deleted key.
func (c *Client) ShowDeletedKey(ctx context.Context, vault, name string) (cmdlet.Key, error) {
	var from deletedKey
	k, err := onKey(ctx, c, vault, name, func(v *azkeys.Client) (azkeys.KeyBundle, error) {
		r, err := v.GetDeletedKey(ctx, name, nil)
		from = deletedKey{r.DeletedDate, r.ScheduledPurgeDate}
		return azkeys.KeyBundle{Key: r.Key, Attributes: r.Attributes}, err
	})
	k.Deleted, k.ScheduledPurge = from.deleted, from.purge
	return k, err
}

type deletedKey struct{ deleted, purge *time.Time }

// ListDeletedKeys lists the deleted keys of a vault.
func (c *Client) ListDeletedKeys(ctx context.Context, vault string) ([]cmdlet.Key, error) {
	v, err := c.vault(vault)
	if err != nil {
		return nil, err
	}
	var all []cmdlet.Key
	for pager := v.NewListDeletedKeyPropertiesPager(nil); pager.More(); {
		page, err := request(ctx, "vault "+vault, func() (azkeys.ListDeletedKeyPropertiesResponse, error) { return pager.NextPage(ctx) })
		if err != nil {
			return nil, err
		}
		for _, one := range page.Value {
			k := fromKey(vault, one.KID, one.Attributes)
			k.Deleted, k.ScheduledPurge = one.DeletedDate, one.ScheduledPurgeDate
			all = append(all, k)
		}
	}
	return all, nil
}

// PurgeKey destroys a deleted key.
func (c *Client) PurgeKey(ctx context.Context, vault, name string) error {
	v, err := c.vault(vault)
	if err != nil {
		return err
	}
	_, err = request(ctx, describe(vault, name), func() (azkeys.PurgeDeletedKeyResponse, error) { return v.PurgeDeletedKey(ctx, name, nil) })
	return err
}

// RecoverKey recovers a deleted key.
func (c *Client) RecoverKey(ctx context.Context, vault, name string) (cmdlet.Key, error) {
	return onKey(ctx, c, vault, name, func(v *azkeys.Client) (azkeys.KeyBundle, error) {
		r, err := v.RecoverDeletedKey(ctx, name, nil)
		return r.KeyBundle, err
	})
}

// RestoreKey restores a key from a backup.
func (c *Client) RestoreKey(ctx context.Context, vault string, backup []byte) (cmdlet.Key, error) {
	return onKey(ctx, c, vault, "", func(v *azkeys.Client) (azkeys.KeyBundle, error) {
		r, err := v.RestoreKey(ctx, azkeys.RestoreKeyParameters{KeyBackup: backup}, nil)
		return r.KeyBundle, err
	})
}

// BackupKey returns all versions of a key, encrypted by the vault.
func (c *Client) BackupKey(ctx context.Context, vault, name string) ([]byte, error) {
	v, err := c.vault(vault)
	if err != nil {
		return nil, err
	}
	r, err := request(ctx, describe(vault, name), func() (azkeys.BackupKeyResponse, error) { return v.BackupKey(ctx, name, nil) })
	return r.Value, err
}

// ListKeys lists the newest versions of all keys.
func (c *Client) ListKeys(ctx context.Context, vault string) ([]cmdlet.Key, error) {
	v, err := c.vault(vault)
	if err != nil {
		return nil, err
	}
	var all []cmdlet.Key
	for pager := v.NewListKeyPropertiesPager(nil); pager.More(); {
		page, err := request(ctx, "vault "+vault, func() (azkeys.ListKeyPropertiesResponse, error) { return pager.NextPage(ctx) })
		if err != nil {
			return nil, err
		}
		for _, k := range page.Value {
			all = append(all, fromKey(vault, k.KID, k.Attributes))
		}
	}
	return all, nil
}

// ListKeyVersions lists all versions of a key, the newest first.
func (c *Client) ListKeyVersions(ctx context.Context, vault, name string) ([]cmdlet.Key, error) {
	v, err := c.vault(vault)
	if err != nil {
		return nil, err
	}
	var all []cmdlet.Key
	for pager := v.NewListKeyPropertiesVersionsPager(name, nil); pager.More(); {
		page, err := request(ctx, describe(vault, name), func() (azkeys.ListKeyPropertiesVersionsResponse, error) { return pager.NextPage(ctx) })
		if err != nil {
			return nil, err
		}
		for _, k := range page.Value {
			all = append(all, fromKey(vault, k.KID, k.Attributes))
		}
	}
	// The vault lists the oldest first; creation times have whole seconds.
	slices.Reverse(all)
	slices.SortStableFunc(all, func(a, b cmdlet.Key) int { return value(b.Created).Compare(value(a.Created)) })
	return all, nil
}

// onKey makes one request about a key.
func onKey(ctx context.Context, c *Client, vault, name string, f func(*azkeys.Client) (azkeys.KeyBundle, error)) (cmdlet.Key, error) {
	v, err := c.vault(vault)
	if err != nil {
		return cmdlet.Key{}, err
	}
	bundle, err := request(ctx, describe(vault, name), func() (azkeys.KeyBundle, error) { return f(v) })
	if err != nil || bundle.Key == nil {
		return cmdlet.Key{}, err
	}
	k := fromKey(vault, bundle.Key.KID, bundle.Attributes)
	k.Type, k.Size, k.Curve = string(value(bundle.Key.Kty)), 8*len(bundle.Key.N), string(value(bundle.Key.Crv))
	for _, o := range bundle.Key.KeyOps {
		k.Operations = append(k.Operations, string(value(o)))
	}
	return k, nil
}

func describe(vault, name string) string {
	if name == "" {
		return "vault " + vault
	}
	return "key " + name + " in vault " + vault
}

// fromKey reads a key identifier and attributes.
func fromKey(vault string, id *azkeys.ID, a *azkeys.KeyAttributes) cmdlet.Key {
	k := cmdlet.Key{Vault: vault}
	if id != nil {
		k.ID, k.Name, k.Version = string(*id), id.Name(), id.Version()
		if u, err := url.Parse(k.ID); err == nil {
			k.Vault, _, _ = strings.Cut(u.Hostname(), ".") // as the vault was named
		}
	}
	if a != nil {
		k.Enabled, k.NotBefore, k.Expires = value(a.Enabled), a.NotBefore, a.Expires
		k.Created, k.Updated, k.RecoveryLevel = a.Created, a.Updated, value(a.RecoveryLevel)
	}
	return k
}

func operations(names []string) []*azkeys.KeyOperation {
	var all []*azkeys.KeyOperation
	for _, n := range names {
		all = append(all, to.Ptr(azkeys.KeyOperation(n)))
	}
	return all
}

func attributes(spec cmdlet.KeySpec) *azkeys.KeyAttributes {
	return &azkeys.KeyAttributes{Enabled: spec.Enabled, NotBefore: spec.NotBefore, Expires: spec.Expires}
}

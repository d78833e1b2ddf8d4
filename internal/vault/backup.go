package vault

import (
	"context"
	"encoding/base64"
	"encoding/json"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/vault/azure"
	"keyroll/internal/vault/material"
)

// maxBackupVersions bounds the versions of one key in a backup (Azure Key Vault
// documentation, backup).
const maxBackupVersions = 500

// backup is the content of a backup, as JSON under the seal. It is bound to the
// tenant, so that it can be restored only to vaults of that tenant.
type backup struct {
	Name     string          `json:"name"`
	Versions []backupVersion `json:"versions"` // the oldest first
	// Where it was made; empty in backups of earlier versions.
	Subscription string `json:"subscription,omitempty"`
	Location     string `json:"location,omitempty"`
}

// checkOrigin refuses a backup that Azure would not restore into a vault: one of
// another subscription, or of a region in another geography.
func (b backup) checkOrigin(into vault) error {
	const rule = "a backup is restored only within one subscription and one geography"
	if b.Subscription != "" && b.Subscription != into.subscription {
		return azure.Invalid("the backup was made in subscription %s, and vault %q is in subscription %s: %s", b.Subscription, into.name, into.subscription, rule)
	}
	if from, to := azure.GeographyOf(b.Location), azure.GeographyOf(into.location); b.Location != "" && from != to {
		return azure.Invalid("the backup was made in region %s, geography %s, and vault %q is in region %s, geography %s: %s", b.Location, from, into.name, into.location, to, rule)
	}
	return nil
}

type backupVersion struct {
	Version    string            `json:"version"`
	Type       string            `json:"kty"`
	Operations []string          `json:"key_ops"`
	Enabled    bool              `json:"enabled"`
	NotBefore  *int64            `json:"nbf,omitempty"` // Unix milliseconds, as all times here
	Expires    *int64            `json:"exp,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Created    int64             `json:"created"`
	Updated    int64             `json:"updated"`
	Private    []byte            `json:"pkcs8"`
}

func (b backup) clear() {
	for _, v := range b.Versions {
		clear(v.Private)
	}
}

// backupBlob is the body of a backup's answer and of a restore request.
type backupBlob struct {
	Value string `json:"value"`
}

func (c *call) backupLabel() string { return "vault backup " + c.tenant.GUID.String() }

// backupKey returns all versions of a key under the seal.
func (v *Vaults) backupKey(ctx context.Context, c *call) (any, error) {
	var k key
	var versions []keyWithVersion
	err := v.db.View(ctx, func(tx *store.Tx) (err error) {
		if k, err = liveKey(ctx, tx, c.vault, c.path["name"]); err != nil {
			return err
		}
		versions, err = selectVersions(ctx, tx, k, 0, maxBackupVersions+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(versions) > maxBackupVersions {
		return nil, fail.New(api.Conflict, "key %q has more than %d versions: it cannot be backed up", k.name, maxBackupVersions)
	}
	b := backup{Name: k.name, Subscription: c.vault.subscription, Location: c.vault.location}
	defer func() { b.clear() }()
	for _, l := range versions {
		ver := l.version
		private, err := v.seal.Open(label(c.vault.id, ver), ver.sealed)
		if err != nil {
			return nil, err
		}
		b.Versions = append(b.Versions, backupVersion{
			Version: ver.version, Type: ver.kind, Operations: ver.operations, Enabled: ver.enabled,
			NotBefore: ver.notBefore, Expires: ver.expire, Tags: ver.tags,
			Created: ver.created, Updated: ver.updated, Private: private,
		})
	}
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return backupBlob{base64.RawURLEncoding.EncodeToString(v.seal.Seal(c.backupLabel(), text))}, nil
}

// restoreKey restores the key of a backup: its name, and all versions with their
// properties. A name that is in use, even by a deleted key, is refused.
func (v *Vaults) restoreKey(ctx context.Context, c *call) (any, error) {
	var blob backupBlob
	if err := azure.Decode(c.body, &blob); err != nil {
		return nil, err
	}
	sealed, err := azure.DecodeBytes("value", blob.Value)
	if err != nil {
		return nil, err
	}
	text, err := v.seal.Open(c.backupLabel(), sealed)
	if err != nil {
		return nil, azure.Invalid("value is not a backup made by a vault of this tenant, or it is damaged").Because(err)
	}
	defer clear(text)
	b, versions, err := parseBackup(text)
	defer b.clear()
	if err != nil {
		return nil, err
	}
	if err := b.checkOrigin(c.vault); err != nil {
		return nil, err
	}
	c.path["name"] = b.Name
	k := key{id: store.NewID(), tenant: c.vault.tenant, vault: c.vault.id, name: b.Name, latest: int64(len(versions))}
	for i := range versions {
		ver := &versions[i]
		ver.id, ver.tenant, ver.key, ver.number = store.NewID(), k.tenant, k.id, int64(i+1)
		ver.sealed = v.sealKey(c.vault.id, *ver, b.Versions[i].Private)
	}
	err = v.inLockedVault(ctx, c.vault, func(tx *store.Tx) error {
		existing, ok, err := findKey(ctx, tx, c.vault.id, k.name)
		switch {
		case err != nil:
			return err
		case ok && existing.deleted != 0:
			return deletedButRecoverable(k.name)
		case ok:
			return fail.New(api.AlreadyExists, "key %q already exists in vault %q: a backup can be restored only under a free name", k.name, c.vault.name)
		}
		if err := insertKey(ctx, tx, k); err != nil {
			return err
		}
		for _, ver := range versions {
			if err := insertVersion(ctx, tx, ver); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c.bundle(k, versions[len(versions)-1])
}

// parseBackup reads the content of a backup and checks it like the input of a user,
// because a backup may be older than this program.
func parseBackup(text []byte) (b backup, versions []version, err error) {
	damaged := func(what string) *fail.Error {
		return azure.Invalid("value is a backup that cannot be restored: %s", what)
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return b, nil, damaged("it cannot be parsed").Because(err)
	}
	if !keyName().MatchString(b.Name) {
		return b, nil, damaged("it names no key")
	}
	if len(b.Versions) == 0 || len(b.Versions) > maxBackupVersions {
		return b, nil, damaged("it has no version, or too many")
	}
	seen := map[string]bool{}
	for _, from := range b.Versions {
		if !keyVersion().MatchString(from.Version) || seen[from.Version] {
			return b, nil, damaged("a version's id is malformed or occurs twice")
		}
		seen[from.Version] = true
		public, err := material.PublicOf(from.Private, from.Type)
		if err != nil {
			return b, nil, damaged(err.Error())
		}
		ver := version{
			version: from.Version, kind: from.Type, enabled: from.Enabled, notBefore: from.NotBefore, expire: from.Expires,
			created: from.Created, updated: from.Updated, public: public,
		}
		if err := ver.apply(attributes{}, supported(from.Type, from.Operations), from.Tags); err != nil {
			return b, nil, err
		}
		versions = append(versions, ver)
	}
	return b, versions, nil
}

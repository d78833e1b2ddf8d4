package vault

import (
	"context"
	"net/http"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/vault/azure"
)

// deletedResource is a deleted vault in answers of the management interface.
type deletedResource struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Properties deletedProperties `json:"properties"`
}

type deletedProperties struct {
	VaultID         string            `json:"vaultId"`
	Location        string            `json:"location"`
	Deleted         time.Time         `json:"deletionDate"`
	ScheduledPurge  time.Time         `json:"scheduledPurgeDate"`
	Tags            map[string]string `json:"tags"`
	PurgeProtection bool              `json:"purgeProtectionEnabled,omitempty"`
}

func (o *managementRequest) deletedResource(v vault) deletedResource {
	return deletedResource{
		ID: "/subscriptions/" + v.subscription + "/providers/Microsoft.KeyVault/locations/" + v.location +
			"/deletedVaults/" + v.name,
		Name: v.name, Type: "Microsoft.KeyVault/deletedVaults",
		Properties: deletedProperties{
			VaultID: o.resourceID(v), Location: v.location, Tags: tagsOf(v), PurgeProtection: v.purgeProtection,
			Deleted: time.UnixMilli(v.deleted).UTC(), ScheduledPurge: time.UnixMilli(v.purgeAt).UTC(),
		},
	}
}

// deleteVault deletes a vault with its keys; they are kept for its retention.
func (v *Vaults) deleteVault(ctx context.Context, o *managementRequest) (int, any, error) {
	_, _, err := v.changeLive(ctx, o, func(tx *store.Tx, found vault) (vault, error) {
		now := v.now()
		found.deleted, found.purgeAt = now.UnixMilli(), found.endOfRetention(now)
		return found, updateVault(ctx, tx, found)
	})
	if fail.Is(err, api.NotFound) {
		return http.StatusNoContent, nil, nil
	}
	return http.StatusOK, nil, err
}

// recoverVault restores a deleted vault unchanged.
func (v *Vaults) recoverVault(ctx context.Context, tx *store.Tx, o *managementRequest, existing *vault) (vault, error) {
	if existing == nil || existing.tenant != o.tenant.ID || existing.deleted == 0 ||
		existing.subscription != o.subscription || !strings.EqualFold(existing.group, o.path["group"]) {
		return vault{}, o.deletedNotFound()
	}
	found := *existing
	found.deleted, found.purgeAt, found.updated = 0, 0, v.now().UnixMilli()
	return found, updateVault(ctx, tx, found)
}

func (o *managementRequest) deletedNotFound() error {
	return azure.Refuse(api.NotFound, "DeletedVaultNotFound", "", "deleted vault %q does not exist", o.path["vault"])
}

func (v *Vaults) listDeletedVaults(ctx context.Context, o *managementRequest) (int, any, error) {
	return v.listPage(ctx, o, listDeletedVaultsSQL, []any{o.subscription, v.now().UnixMilli()}, func(_ *store.Tx, found vault) (any, error) {
		return o.deletedResource(found), nil
	})
}

// findDeleted returns the deleted vault that the path names.
func (v *Vaults) findDeleted(ctx context.Context, tx *store.Tx, o *managementRequest) (vault, error) {
	found, err := findVault(ctx, tx, o.path["vault"])
	if fail.Is(err, api.NotFound) {
		return vault{}, o.deletedNotFound()
	}
	if err == nil && (found.tenant != o.tenant.ID || found.deleted == 0 || found.purgeAt <= v.now().UnixMilli() || found.subscription != o.subscription ||
		!strings.EqualFold(found.location, o.path["location"])) {
		return vault{}, o.deletedNotFound()
	}
	return found, err
}

func (v *Vaults) getDeletedVault(ctx context.Context, o *managementRequest) (int, any, error) {
	var found vault
	err := v.db.View(ctx, func(tx *store.Tx) (err error) {
		found, err = v.findDeleted(ctx, tx, o)
		return err
	})
	return http.StatusOK, o.deletedResource(found), err
}

// purgeVault destroys a deleted vault before its retention ends, unless it has
// purge protection.
func (v *Vaults) purgeVault(ctx context.Context, o *managementRequest) (int, any, error) {
	err := v.db.InTx(ctx, func(tx *store.Tx) error {
		if err := lockName(ctx, tx, o.path["vault"]); err != nil {
			return err
		}
		found, err := v.findDeleted(ctx, tx, o)
		if err != nil {
			return err
		}
		if found.purgeProtection {
			return azure.Refuse(api.Conflict, "MethodNotAllowed", "", "purge of vault %q is not allowed: it has purge protection", found.name)
		}
		return deleteVaultRows(ctx, tx, found)
	})
	return http.StatusOK, nil, err
}

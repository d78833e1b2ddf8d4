package vaults

import (
	"context"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"

	"keyroll/api"
	"keyroll/internal/cmdlet"
	"keyroll/internal/fail"
)

// ListDeletedVaults lists the vaults that can be recovered.
func (c *Client) ListDeletedVaults(ctx context.Context) ([]cmdlet.Vault, error) {
	subscriptions, err := c.subscriptions(ctx)
	if err != nil {
		return nil, err
	}
	var all []cmdlet.Vault
	for _, in := range subscriptions {
		m, err := c.manage(in.ID)
		if err != nil {
			return nil, err
		}
		for pager := m.NewListDeletedPager(nil); pager.More(); {
			page, err := request(ctx, "deleted vaults", func() (armkeyvault.VaultsClientListDeletedResponse, error) { return pager.NextPage(ctx) })
			if err != nil {
				return nil, err
			}
			for _, v := range page.Value {
				all = append(all, fromDeletedVault(v))
			}
		}
	}
	return all, nil
}

// RecoverVault recovers a deleted vault.
func (c *Client) RecoverVault(ctx context.Context, name string) (cmdlet.Vault, error) {
	v, err := c.findDeleted(ctx, name)
	if err != nil {
		return cmdlet.Vault{}, err
	}
	in, err := c.subscriptionWith(ctx, v.Subscription)
	if err != nil {
		return cmdlet.Vault{}, err
	}
	// The official client requires SKU and tenant; a recovery changes neither.
	return c.put(ctx, v.Subscription, v, &armkeyvault.VaultProperties{
		TenantID: &in.Tenant, CreateMode: to.Ptr(armkeyvault.CreateModeRecover),
		SKU: &armkeyvault.SKU{Family: to.Ptr(armkeyvault.SKUFamilyA), Name: to.Ptr(armkeyvault.SKUNameStandard)},
	})
}

// PurgeVault destroys a deleted vault.
func (c *Client) PurgeVault(ctx context.Context, name string) error {
	v, err := c.findDeleted(ctx, name)
	if err != nil {
		return err
	}
	m, err := c.manage(v.Subscription)
	if err != nil {
		return err
	}
	_, err = request(ctx, "deleted vault "+v.Name, func() (done armkeyvault.VaultsClientPurgeDeletedResponse, err error) {
		poller, err := m.BeginPurgeDeleted(ctx, v.Name, v.Location, nil)
		if err != nil {
			return done, err
		}
		return poller.PollUntilDone(ctx, nil)
	})
	return err
}

func (c *Client) findDeleted(ctx context.Context, name string) (cmdlet.Vault, error) {
	all, err := c.ListDeletedVaults(ctx)
	if err != nil {
		return cmdlet.Vault{}, err
	}
	for _, v := range all {
		if strings.EqualFold(v.Name, name) {
			return v, nil
		}
	}
	return cmdlet.Vault{}, fail.New(api.NotFound, "deleted vault %.150q does not exist", name).
		WithHint("Get-AzKeyVault -InRemovedState lists the deleted vaults")
}

func fromDeletedVault(v *armkeyvault.DeletedVault) cmdlet.Vault {
	out := cmdlet.Vault{Name: value(v.Name)}
	p := v.Properties
	if p == nil {
		return out
	}
	out.ID, out.Location, out.PurgeProtection = value(p.VaultID), value(p.Location), value(p.PurgeProtectionEnabled)
	out.Deleted, out.ScheduledPurge = p.DeletionDate, p.ScheduledPurgeDate
	if id, err := arm.ParseResourceID(out.ID); err == nil {
		out.ResourceGroup, out.Subscription = id.ResourceGroupName, id.SubscriptionID
	}
	return out
}

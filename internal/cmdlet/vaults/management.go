package vaults

import (
	"context"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"

	"keyroll/api"
	"keyroll/internal/cmdlet"
	"keyroll/internal/fail"
)

// management is the official client for the tenant's one subscription.
type management struct {
	*armkeyvault.VaultsClient
	tenant string // GUID
}

// manage returns the management client. The server tells the subscription.
func (c *Client) manage(ctx context.Context) (*management, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.management != nil {
		return c.management, nil
	}
	type subscriptions struct {
		Value []struct {
			ID     string `json:"subscriptionId"`
			Tenant string `json:"tenantId"`
		} `json:"value"`
	}
	found, err := ask(ctx, "subscriptions", func() (found subscriptions, err error) {
		request, err := runtime.NewRequest(ctx, http.MethodGet, runtime.JoinPaths(c.subscription.Endpoint(), "/subscriptions"))
		if err != nil {
			return found, err
		}
		request.Raw().URL.RawQuery = "api-version=2022-12-01"
		response, err := c.subscription.Pipeline().Do(request)
		if err != nil {
			return found, err
		}
		if !runtime.HasStatusCode(response, http.StatusOK) {
			return found, runtime.NewResponseError(response)
		}
		return found, runtime.UnmarshalAsJSON(response, &found)
	})
	if err != nil {
		return nil, err
	}
	if len(found.Value) != 1 {
		return nil, fail.New(api.VaultUnavailable, "subscriptions: expected one, found %d", len(found.Value))
	}
	vaults, err := armkeyvault.NewVaultsClient(found.Value[0].ID, c.token,
		&arm.ClientOptions{ClientOptions: c.options, DisableRPRegistration: true})
	if err != nil {
		return nil, err
	}
	c.management = &management{vaults, found.Value[0].Tenant}
	return c.management, nil
}

// CreateVault makes a vault. A name that the tenant uses already is AlreadyExists.
func (c *Client) CreateVault(ctx context.Context, v cmdlet.Vault) (cmdlet.Vault, error) {
	if _, err := c.vault(v.Name); err != nil {
		return cmdlet.Vault{}, err
	}
	_, err := c.ShowVault(ctx, v.Name)
	if err == nil {
		err = fail.New(api.AlreadyExists, "vault %q exists", v.Name)
	}
	if !fail.Is(err, api.NotFound) {
		return cmdlet.Vault{}, err
	}
	m, err := c.manage(ctx)
	if err != nil {
		return cmdlet.Vault{}, err
	}
	properties := &armkeyvault.VaultProperties{
		TenantID: &m.tenant,
		SKU:      &armkeyvault.SKU{Family: to.Ptr(armkeyvault.SKUFamilyA), Name: to.Ptr(armkeyvault.SKUName(v.SKU))},
	}
	if v.PurgeProtection {
		properties.EnablePurgeProtection = to.Ptr(true)
	}
	made, err := ask(ctx, "vault "+v.Name, func() (made armkeyvault.VaultsClientCreateOrUpdateResponse, err error) {
		poller, err := m.BeginCreateOrUpdate(ctx, v.ResourceGroup, v.Name,
			armkeyvault.VaultCreateOrUpdateParameters{Location: &v.Location, Properties: properties}, nil)
		if err != nil {
			return made, err
		}
		return poller.PollUntilDone(ctx, nil)
	})
	return fromVault(&made.Vault), err
}

// ListVaults lists the tenant's vaults.
func (c *Client) ListVaults(ctx context.Context) ([]cmdlet.Vault, error) {
	m, err := c.manage(ctx)
	if err != nil {
		return nil, err
	}
	var all []cmdlet.Vault
	for pager := m.NewListBySubscriptionPager(nil); pager.More(); {
		page, err := ask(ctx, "vaults", func() (armkeyvault.VaultsClientListBySubscriptionResponse, error) { return pager.NextPage(ctx) })
		if err != nil {
			return nil, err
		}
		for _, v := range page.Value {
			all = append(all, fromVault(v))
		}
	}
	return all, nil
}

// ShowVault finds a vault in whatever resource group it is.
func (c *Client) ShowVault(ctx context.Context, name string) (cmdlet.Vault, error) {
	all, err := c.ListVaults(ctx)
	if err != nil {
		return cmdlet.Vault{}, err
	}
	for _, v := range all {
		if strings.EqualFold(v.Name, name) {
			return v, nil
		}
	}
	return cmdlet.Vault{}, fail.New(api.NotFound, "vault %.150q does not exist", name).WithHint("Get-AzKeyVault lists the vaults")
}

// SetAccess gives a principal exactly the permissions of access.
func (c *Client) SetAccess(ctx context.Context, vault string, access cmdlet.Access) error {
	v, err := c.ShowVault(ctx, vault)
	if err != nil {
		return err
	}
	m, err := c.manage(ctx)
	if err != nil {
		return err
	}
	kind := armkeyvault.AccessPolicyUpdateKindReplace
	if len(access.Keys) == 0 {
		kind = armkeyvault.AccessPolicyUpdateKindRemove
	}
	keys := []*armkeyvault.KeyPermissions{}
	for _, k := range access.Keys {
		keys = append(keys, to.Ptr(armkeyvault.KeyPermissions(k)))
	}
	_, err = ask(ctx, "vault "+v.Name, func() (armkeyvault.VaultsClientUpdateAccessPolicyResponse, error) {
		return m.UpdateAccessPolicy(ctx, v.ResourceGroup, v.Name, kind, armkeyvault.VaultAccessPolicyParameters{
			Properties: &armkeyvault.VaultAccessPolicyProperties{AccessPolicies: []*armkeyvault.AccessPolicyEntry{{
				TenantID: &m.tenant, ObjectID: &access.Principal, Permissions: &armkeyvault.Permissions{Keys: keys}}}},
		}, nil)
	})
	return err
}

// fromVault reads a vault as the management shows it.
func fromVault(v *armkeyvault.Vault) cmdlet.Vault {
	out := cmdlet.Vault{Name: value(v.Name), Location: value(v.Location), ID: value(v.ID)}
	if id, err := arm.ParseResourceID(out.ID); err == nil {
		out.ResourceGroup = id.ResourceGroupName
	}
	p := v.Properties
	if p == nil {
		return out
	}
	out.URI, out.RetentionDays, out.PurgeProtection = value(p.VaultURI), value(p.SoftDeleteRetentionInDays), value(p.EnablePurgeProtection)
	if p.SKU != nil {
		out.SKU = string(value(p.SKU.Name))
	}
	for _, a := range p.AccessPolicies {
		access := cmdlet.Access{Principal: value(a.ObjectID)}
		if a.Permissions != nil {
			for _, k := range a.Permissions.Keys {
				access.Keys = append(access.Keys, string(value(k)))
			}
		}
		out.Access = append(out.Access, access)
	}
	return out
}

// value is what p points to, or nothing.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

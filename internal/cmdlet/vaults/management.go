package vaults

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"

	"keyroll/api"
	"keyroll/internal/cmdlet"
	"keyroll/internal/fail"
)

// subscription is a subscription of the tenant; the first in the list is the default.
type subscription struct {
	ID     string `json:"subscriptionId"`
	Tenant string `json:"tenantId"`
}

// subscriptions lists the subscriptions; a new one appears once it has a vault.
func (c *Client) subscriptions(ctx context.Context) ([]subscription, error) {
	var found struct {
		Value []subscription `json:"value"`
	}
	err := c.callARM(ctx, armRequest{what: "subscriptions", method: http.MethodGet, version: "2022-12-01", path: "/subscriptions"}, &found)
	if err == nil && len(found.Value) == 0 {
		err = fail.New(api.VaultUnavailable, "subscriptions: the server returned none")
	}
	return found.Value, err
}

// armRequest is a request to the Resource Manager for which no official client is used.
type armRequest struct {
	what         string // what is requested, for messages
	method, path string
	version      string // of the API
}

func (c *Client) callARM(ctx context.Context, r armRequest, answer any) error {
	_, err := request(ctx, r.what, func() (none struct{}, err error) {
		request, err := runtime.NewRequest(ctx, r.method, runtime.JoinPaths(c.subscription.Endpoint(), r.path))
		if err != nil {
			return none, err
		}
		request.Raw().URL.RawQuery = "api-version=" + r.version
		response, err := c.subscription.Pipeline().Do(request)
		if err != nil {
			return none, err
		}
		if !runtime.HasStatusCode(response, http.StatusOK) {
			return none, runtime.NewResponseError(response)
		}
		return none, runtime.UnmarshalAsJSON(response, answer)
	})
	return err
}

// subscriptionWith returns the subscription with that id, which need not have a vault yet, or the
// tenant's default one.
func (c *Client) subscriptionWith(ctx context.Context, id string) (subscription, error) {
	all, err := c.subscriptions(ctx)
	if err != nil {
		return subscription{}, err
	}
	first := all[0]
	if id != "" {
		if !guid().MatchString(id) {
			return subscription{}, fail.New(api.InvalidArgument, "subscription %.100q is not a GUID", id)
		}
		first.ID = strings.ToLower(id)
	}
	return first, nil
}

var guid = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
})

// manage returns the official client for one subscription.
func (c *Client) manage(id string) (*armkeyvault.VaultsClient, error) {
	return armkeyvault.NewVaultsClient(id, c.token, &arm.ClientOptions{ClientOptions: c.options, DisableRPRegistration: true})
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
	in, err := c.subscriptionWith(ctx, v.Subscription)
	if err != nil {
		return cmdlet.Vault{}, err
	}
	properties := &armkeyvault.VaultProperties{
		TenantID: &in.Tenant,
		SKU:      &armkeyvault.SKU{Family: to.Ptr(armkeyvault.SKUFamilyA), Name: to.Ptr(armkeyvault.SKUName(v.SKU))},
	}
	if v.PurgeProtection {
		properties.EnablePurgeProtection = to.Ptr(true)
	}
	if v.RetentionDays != 0 {
		properties.SoftDeleteRetentionInDays = &v.RetentionDays
	}
	return c.put(ctx, in.ID, v, properties)
}

// put creates a vault, or recovers one.
func (c *Client) put(ctx context.Context, subscription string, v cmdlet.Vault, properties *armkeyvault.VaultProperties) (cmdlet.Vault, error) {
	m, err := c.manage(subscription)
	if err != nil {
		return cmdlet.Vault{}, err
	}
	made, err := request(ctx, "vault "+v.Name, func() (made armkeyvault.VaultsClientCreateOrUpdateResponse, err error) {
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
		for pager := m.NewListBySubscriptionPager(nil); pager.More(); {
			var raw *http.Response
			page, err := request(ctx, "vaults", func() (armkeyvault.VaultsClientListBySubscriptionResponse, error) {
				return pager.NextPage(policy.WithCaptureResponse(ctx, &raw))
			})
			if err != nil {
				return nil, err
			}
			names := displayNames(raw)
			for _, v := range page.Value {
				all = append(all, withNames(fromVault(v), names))
			}
		}
	}
	return all, nil
}

// displayNames returns the display names of the access policies in a list of vaults,
// by object id; the official client leaves them out.
func displayNames(raw *http.Response) map[string]string {
	var answer struct {
		Value []struct {
			Properties struct {
				AccessPolicies []struct {
					ObjectID    string `json:"objectId"`
					DisplayName string `json:"displayName"`
				} `json:"accessPolicies"`
			} `json:"properties"`
		} `json:"value"`
	}
	names := map[string]string{}
	if raw == nil || runtime.UnmarshalAsJSON(raw, &answer) != nil {
		return names
	}
	for _, v := range answer.Value {
		for _, a := range v.Properties.AccessPolicies {
			names[a.ObjectID] = a.DisplayName
		}
	}
	return names
}

func withNames(v cmdlet.Vault, names map[string]string) cmdlet.Vault {
	for i, a := range v.Access {
		v.Access[i].Name = names[a.Principal]
	}
	return v
}

// ShowVault finds a vault in any resource group.
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

// ProtectVault switches purge protection on.
func (c *Client) ProtectVault(ctx context.Context, name string) (cmdlet.Vault, error) {
	v, m, err := c.findExisting(ctx, name)
	if err != nil {
		return v, err
	}
	_, err = request(ctx, "vault "+v.Name, func() (armkeyvault.VaultsClientUpdateResponse, error) {
		return m.Update(ctx, v.ResourceGroup, v.Name, armkeyvault.VaultPatchParameters{
			Properties: &armkeyvault.VaultPatchProperties{EnablePurgeProtection: to.Ptr(true)}}, nil)
	})
	if err != nil {
		return cmdlet.Vault{}, err
	}
	return c.ShowVault(ctx, v.Name)
}

// RemoveVault deletes a vault; it stays recoverable.
func (c *Client) RemoveVault(ctx context.Context, name string) error {
	v, m, err := c.findExisting(ctx, name)
	if err != nil {
		return err
	}
	_, err = request(ctx, "vault "+v.Name, func() (armkeyvault.VaultsClientDeleteResponse, error) {
		return m.Delete(ctx, v.ResourceGroup, v.Name, nil)
	})
	return err
}

// findExisting returns a vault and the client of its subscription.
func (c *Client) findExisting(ctx context.Context, name string) (cmdlet.Vault, *armkeyvault.VaultsClient, error) {
	v, err := c.ShowVault(ctx, name)
	if err != nil {
		return v, nil, err
	}
	m, err := c.manage(v.Subscription)
	return v, m, err
}

// SetAccess gives a principal exactly the permissions of access. For a person it
// sends the name; the server finds or creates the object id.
func (c *Client) SetAccess(ctx context.Context, vault string, access cmdlet.Access) error {
	v, m, err := c.findExisting(ctx, vault)
	if err != nil {
		return err
	}
	in, err := c.subscriptionWith(ctx, v.Subscription)
	if err != nil {
		return err
	}
	who := access.Principal
	if who == "" {
		who = access.Name
	}
	kind := armkeyvault.AccessPolicyUpdateKindReplace
	if len(access.Keys) == 0 {
		kind = armkeyvault.AccessPolicyUpdateKindRemove
	}
	keys := []*armkeyvault.KeyPermissions{}
	for _, k := range access.Keys {
		keys = append(keys, to.Ptr(armkeyvault.KeyPermissions(k)))
	}
	_, err = request(ctx, "vault "+v.Name, func() (armkeyvault.VaultsClientUpdateAccessPolicyResponse, error) {
		return m.UpdateAccessPolicy(ctx, v.ResourceGroup, v.Name, kind, armkeyvault.VaultAccessPolicyParameters{
			Properties: &armkeyvault.VaultAccessPolicyProperties{AccessPolicies: []*armkeyvault.AccessPolicyEntry{{
				TenantID: &in.Tenant, ObjectID: &who, Permissions: &armkeyvault.Permissions{Keys: keys}}}},
		}, nil)
	})
	return err
}

// fromVault reads a vault as the management shows it.
func fromVault(v *armkeyvault.Vault) cmdlet.Vault {
	out := cmdlet.Vault{Name: value(v.Name), Location: value(v.Location), ID: value(v.ID)}
	if id, err := arm.ParseResourceID(out.ID); err == nil {
		out.ResourceGroup, out.Subscription = id.ResourceGroupName, id.SubscriptionID
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

// value returns what p points to, or the zero value.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

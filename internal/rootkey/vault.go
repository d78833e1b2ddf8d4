package rootkey

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"

	"keyroll/internal/envelope"
	"keyroll/internal/fail"
)

// VaultInfo describes a vault as its management plane reports it.
type VaultInfo struct {
	Subscription, ResourceGroup, Location string
	SoftDelete, PurgeProtection           bool
	// Principal is the application id of the caller, and Permissions are those that
	// the vault's access policy gives it. Principal is empty if it is not known: for
	// a vault in Azure, or one that uses role assignments.
	Principal   string
	Permissions []string
}

// resourceManagers are the Azure Resource Managers of azureClouds, by authority.
var resourceManagers = map[string]cloud.Configuration{
	"":                                  cloud.AzurePublic,
	"https://login.chinacloudapi.cn/":   cloud.AzureChina,
	"https://login.microsoftonline.us/": cloud.AzureGovernment,
}

// Describe reads a vault from its management plane, which the role Reader permits. For
// an own vault it calls keyroll's own listener as the service principal, for one in
// Azure the Resource Manager with the machine's own credentials, which may lack the
// permission.
func (c *Client) Describe(ctx context.Context, tenant int64, id Identity, vault string) (info VaultInfo, err error) {
	to, err := c.target(envelope.KeyVersion{Vault: vault, Key: "k"})
	if err != nil {
		return info, err
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err = c.catchPanic(func() (err error) {
		info, err = c.describe(bounded, tenant, id, to)
		return err
	})
	var known *fail.Error
	switch {
	case err == nil:
		return info, nil
	case errors.Is(ctx.Err(), context.Canceled):
		err = ctx.Err()
	case bounded.Err() != nil:
		err = errors.New(TimedOut.Reason)
	case !errors.As(err, &known) && !errors.Is(err, errNotListed):
		err = errors.New(Classify(err).Reason)
	}
	return VaultInfo{}, fmt.Errorf("management of vault %q: %w", vault, err)
}

var errNotListed = errors.New("none of the subscriptions that it lists has the vault")

func (c *Client) describe(ctx context.Context, tenant int64, id Identity, to target) (VaultInfo, error) {
	credential, principal, options, err := c.management(ctx, tenant, id, to)
	if err != nil {
		return VaultInfo{}, err
	}
	subscriptions, err := listSubscriptions(ctx, credential, options)
	if err != nil {
		return VaultInfo{}, err
	}
	for _, subscription := range subscriptions {
		vaults, err := armkeyvault.NewVaultsClient(subscription, credential, options)
		if err != nil {
			return VaultInfo{}, err
		}
		for pager := vaults.NewListBySubscriptionPager(nil); pager.More(); {
			page, err := pager.NextPage(ctx)
			if err != nil {
				return VaultInfo{}, err
			}
			for _, v := range page.Value {
				if v.Name != nil && strings.EqualFold(*v.Name, vaultLabel(to.Vault)) {
					return vaultInfo(v, principal)
				}
			}
		}
	}
	return VaultInfo{}, errNotListed
}

// management returns the credential and the options for a vault's management plane.
func (c *Client) management(ctx context.Context, tenant int64, id Identity, to target) (credential azcore.TokenCredential, principal string, o *arm.ClientOptions, err error) {
	o = &arm.ClientOptions{DisableRPRegistration: true}
	if to.own {
		o.ClientOptions = c.own.options()
		o.Cloud = cloud.Configuration{Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: c.config.Authority, Audience: c.config.Authority}}}
		credential, principal, err = c.principal(ctx, tenant, id)
	} else {
		o.ClientOptions = c.external.options()
		o.Cloud = resourceManagers[to.authority]
		credential, err = c.external.credential(to.authority)
	}
	return guardedCredential{credential, c}, principal, o, err
}

func listSubscriptions(ctx context.Context, credential azcore.TokenCredential, o *arm.ClientOptions) ([]string, error) {
	client, err := arm.NewClient("keyroll", "v1.0.0", credential, o)
	if err != nil {
		return nil, err
	}
	request, err := runtime.NewRequest(ctx, http.MethodGet, runtime.JoinPaths(client.Endpoint(), "/subscriptions"))
	if err != nil {
		return nil, err
	}
	request.Raw().URL.RawQuery = "api-version=2022-12-01"
	response, err := client.Pipeline().Do(request)
	if err != nil {
		return nil, err
	}
	if !runtime.HasStatusCode(response, http.StatusOK) {
		return nil, runtime.NewResponseError(response)
	}
	var answer struct {
		Value []struct {
			ID string `json:"subscriptionId"`
		} `json:"value"`
	}
	if err := runtime.UnmarshalAsJSON(response, &answer); err != nil {
		return nil, err
	}
	var ids []string
	for _, s := range answer.Value {
		ids = append(ids, s.ID)
	}
	return ids, nil
}

// vaultInfo reads an answer. A missing protection is off: Azure omits purge protection
// that was never switched on.
func vaultInfo(v *armkeyvault.Vault, principal string) (VaultInfo, error) {
	if v.ID == nil || v.Location == nil || v.Properties == nil {
		return VaultInfo{}, errors.New("the answer is not a vault")
	}
	place, err := arm.ParseResourceID(*v.ID)
	if err != nil {
		return VaultInfo{}, errors.New("the answer is not a vault")
	}
	p := v.Properties
	info := VaultInfo{Subscription: strings.ToLower(place.SubscriptionID), ResourceGroup: place.ResourceGroupName, Location: *v.Location,
		SoftDelete: p.EnableSoftDelete == nil || *p.EnableSoftDelete, PurgeProtection: p.EnablePurgeProtection != nil && *p.EnablePurgeProtection}
	if p.EnableRbacAuthorization != nil && *p.EnableRbacAuthorization {
		return info, nil
	}
	info.Principal = principal
	for _, a := range p.AccessPolicies {
		if principal == "" || a.ObjectID == nil || !strings.EqualFold(*a.ObjectID, principal) || a.Permissions == nil {
			continue
		}
		for _, k := range a.Permissions.Keys {
			if k != nil {
				info.Permissions = append(info.Permissions, string(*k))
			}
		}
	}
	return info, nil
}

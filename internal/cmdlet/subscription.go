package cmdlet

import (
	"context"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

func subscriptionCmdlets() []*Cmdlet {
	feature := []Param{
		{Name: "FeatureName", Type: String, Mandatory: true, Help: "Name of the feature, such as mandatoryRetentionPeriodEnabled."},
		{Name: "ProviderNamespace", Type: String, Mandatory: true, Help: "Provider of the feature, such as Microsoft.Resources."},
	}
	subscription := Param{Name: "Subscription", Aliases: []string{"SubscriptionId"}, Type: String, Position: 1, Help: "Id of a subscription, a GUID."}
	needed := subscription
	needed.Mandatory = true
	emits := featureObject(Feature{}).names()
	return []*Cmdlet{
		{
			Name: "Connect-AzAccount", Aliases: []string{"Connect-AzureRmAccount", "Login-AzAccount", "Login-AzureRmAccount"}, Run: connectAccount, Emits: []string{"Subscription"},
			Synopsis: "Selects a subscription, as Set-AzContext does; it does not sign in, because the shell is connected already.",
			Example:  "Connect-AzAccount",
			Params: []Param{subscription, {Name: "Tenant", Aliases: []string{"TenantId"}, Type: String, Help: "Accepted and ignored."},
				{Name: "Credential", Type: Any, Help: "Accepted and ignored."}},
		},
		{
			Name: "Set-AzContext", Aliases: []string{"Set-AzureRmContext", "Select-AzSubscription", "Select-AzureRmSubscription"}, Run: setContext, Emits: []string{"Subscription"},
			Synopsis: "Selects the subscription in which this shell creates vaults and registers features from now on (default: the tenant's default subscription).",
			Example:  "Set-AzContext -SubscriptionId 11111111-1111-1111-1111-111111111111",
			Params:   []Param{needed},
		},
		{
			Name: "Register-AzProviderFeature", Aliases: olderNames("Register-AzProviderFeature"), Run: registerFeature, Emits: emits, Changes: true,
			Synopsis: "Registers the subscription for a feature. mandatoryRetentionPeriodEnabled gives the keys in it the recovery level Recoverable+ProtectedSubscription.",
			Example:  "Register-AzProviderFeature -FeatureName mandatoryRetentionPeriodEnabled -ProviderNamespace Microsoft.Resources",
			Params:   feature,
		},
		{
			Name: "Get-AzProviderFeature", Aliases: olderNames("Get-AzProviderFeature"), Run: getFeature, Emits: emits,
			Synopsis: "Shows whether the subscription is registered for a feature.",
			Example:  "Get-AzProviderFeature -ProviderNamespace Microsoft.Resources -FeatureName mandatoryRetentionPeriodEnabled",
			Params:   feature,
		},
		{
			Name: "Register-AzResourceProvider", Aliases: olderNames("Register-AzResourceProvider"), Run: registerProvider, Emits: []string{"ProviderNamespace", "RegistrationState"}, Changes: true,
			Synopsis: "Registers the subscription for a resource provider.",
			Example:  "Register-AzResourceProvider -ProviderNamespace Microsoft.KeyVault",
			Params:   []Param{{Name: "ProviderNamespace", Type: String, Position: 1, Mandatory: true, Help: "Name of the provider, such as Microsoft.KeyVault."}},
		},
		{
			Name: "New-AzResourceGroup", Aliases: olderNames("New-AzResourceGroup"), Run: newGroupOfResources, Emits: []string{"ResourceGroupName", "Location", "ProvisioningState"},
			Synopsis: "Does nothing: a resource group is only a name in a vault, and need not be created first.",
			Example:  "New-AzResourceGroup -Name Contoso-RG -Location 'West US'",
			Params: []Param{{Name: "Name", Aliases: []string{"ResourceGroupName"}, Type: String, Position: 1, Mandatory: true, Help: "Name of the group."},
				{Name: "Location", Type: String, Position: 2, Mandatory: true, Help: "Region."},
				{Name: "Force", Type: Switch, Help: "Accepted; no confirmation is asked for."}},
		},
		{
			Name: "Get-AzResource", Aliases: olderNames("Get-AzResource"), Run: getResource, Emits: resourceObject(Vault{}).names(),
			Synopsis: "Shows a key vault as a resource.",
			Example:  "$v = Get-AzKeyVault -VaultName Contoso-A; Get-AzResource -ResourceId $v.ResourceId",
			Params:   []Param{resourceID},
		},
		{
			Name: "Set-AzResource", Aliases: olderNames("Set-AzResource"), Run: setResource, Emits: resourceObject(Vault{}).names(), Changes: true,
			Synopsis: "Changes a key vault by its properties: enablePurgeProtection can be switched on. enableSoftDelete is always on.",
			Example:  "$r = Get-AzResource -ResourceId (Get-AzKeyVault -VaultName Contoso-A).ResourceId; $r.Properties | Add-Member -MemberType NoteProperty -Name enablePurgeProtection -Value 'True'; Set-AzResource -ResourceId $r.ResourceId -Properties $r.Properties",
			Params: []Param{resourceID, {Name: "Properties", Aliases: []string{"PropertyObject"}, Type: Any, Mandatory: true, Help: "The properties, as Get-AzResource returns them."},
				{Name: "Force", Type: Switch, Help: "Accepted; no confirmation is asked for."}},
		},
	}
}

func connectAccount(ctx context.Context, c *Call) error {
	if err := connected(ctx, c); err != nil || !c.has("Subscription") {
		return err
	}
	return setContext(ctx, c)
}

func setContext(_ context.Context, c *Call) error {
	id := strings.ToLower(c.text("Subscription"))
	if !guidForm().MatchString(id) {
		return invalid("%.100q is not a valid subscription id", id).WithHint("a subscription id is a GUID")
	}
	c.subscription = id
	return c.emit(&Object{Properties: []Property{{"Subscription", id}}})
}

func featureObject(f Feature) *Object {
	return &Object{Properties: []Property{{"FeatureName", f.Name}, {"ProviderName", f.Namespace}, {"RegistrationState", f.State}}}
}

func registerFeature(ctx context.Context, c *Call) error {
	namespace, name := c.text("ProviderNamespace"), c.text("FeatureName")
	if err := c.confirm(ctx, "Register the subscription for feature %s of %s", name, namespace); err != nil {
		return err
	}
	return c.emitFeature(c.Vaults.RegisterFeature(ctx, c.subscription, namespace, name))
}

func getFeature(ctx context.Context, c *Call) error {
	return c.emitFeature(c.Vaults.ShowFeature(ctx, c.subscription, c.text("ProviderNamespace"), c.text("FeatureName")))
}

func (c *Call) emitFeature(f Feature, err error) error {
	if err != nil {
		return err
	}
	return c.emit(featureObject(f))
}

func registerProvider(ctx context.Context, c *Call) error {
	namespace := c.text("ProviderNamespace")
	if err := c.confirm(ctx, "Register the subscription for %s", namespace); err != nil {
		return err
	}
	state, err := c.Vaults.RegisterProvider(ctx, c.subscription, namespace)
	if err != nil {
		return err
	}
	return c.emit(&Object{Properties: []Property{{"ProviderNamespace", namespace}, {"RegistrationState", state}}})
}

func newGroupOfResources(_ context.Context, c *Call) error {
	return c.emit(&Object{Properties: []Property{{"ResourceGroupName", c.text("Name")}, {"Location", c.text("Location")}, {"ProvisioningState", "Succeeded"}}})
}

var resourceID = Param{Name: "ResourceId", Type: String, Position: 1, Mandatory: true, Piped: true, Help: "Id of a key vault, as Get-AzKeyVault returns it."}

func resourceObject(v Vault) *Object {
	properties := &Object{Properties: []Property{{"sku", v.SKU}, {"vaultUri", v.URI}, {"enableSoftDelete", true},
		{"softDeleteRetentionInDays", int64(v.RetentionDays)}, {"enablePurgeProtection", v.PurgeProtection}}}
	return &Object{Properties: []Property{
		{"ResourceId", v.ID}, {"Name", v.Name}, {"ResourceGroupName", v.ResourceGroup}, {"ResourceType", "Microsoft.KeyVault/vaults"},
		{"Location", v.Location}, {"Properties", properties},
	}}
}

// resource returns the vault that -ResourceId names.
func (c *Call) resource(ctx context.Context) (Vault, error) {
	id := c.text("ResourceId")
	v, err := c.Vaults.ShowVault(ctx, id[strings.LastIndexByte(id, '/')+1:])
	if err == nil && !strings.EqualFold(v.ID, id) {
		err = fail.New(api.NotFound, "resource %.300q does not exist", id).WithHint("(Get-AzKeyVault -VaultName NAME).ResourceId is the id of a vault")
	}
	return v, err
}

func getResource(ctx context.Context, c *Call) error {
	v, err := c.resource(ctx)
	if err != nil {
		return err
	}
	return c.emit(resourceObject(v))
}

func setResource(ctx context.Context, c *Call) error {
	wanted, ok := c.args["Properties"].(*Object)
	if !ok {
		return invalid("-Properties needs the properties of a resource").WithHint("$r = Get-AzResource -ResourceId ID; -Properties $r.Properties")
	}
	v, err := c.resource(ctx)
	if err != nil {
		return err
	}
	protect := false
	properties, _ := resourceObject(v).Get("Properties")
	for _, p := range wanted.Properties {
		now, known := properties.(*Object).Get(p.Name)
		same, _ := matches("eq", display(now), display(p.Value))
		switch {
		case same:
		case known && strings.EqualFold(p.Name, "enablePurgeProtection") && strings.EqualFold(display(p.Value), "true"):
			protect = true
		case strings.EqualFold(p.Name, "enableSoftDelete"), strings.EqualFold(p.Name, "enablePurgeProtection"):
			return fail.New(api.Conflict, "%s of vault %s is on and cannot be switched off", p.Name, v.Name)
		default:
			return invalid("property %s of a vault cannot be changed with this cmdlet", p.Name).WithHint("Update-AzKeyVault and Set-AzKeyVaultAccessPolicy change vaults")
		}
	}
	if err := c.confirm(ctx, "Set the properties of vault %s", v.Name); err != nil {
		return err
	}
	if protect {
		if v, err = c.Vaults.ProtectVault(ctx, v.Name); err != nil {
			return err
		}
	}
	return c.emit(resourceObject(v))
}

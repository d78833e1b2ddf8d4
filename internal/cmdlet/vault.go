package cmdlet

import (
	"context"
	"regexp"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

// longName is the most that Azure itself allows a vault's name to have.
const longName = 24

var (
	vaultName = Param{Name: "VaultName", Aliases: []string{"Name"}, Type: String, Position: 1, Mandatory: true, Piped: true,
		Help: "Name of the vault: 3 to 127 letters, digits and hyphens."}

	// principals are the parameters that name who gets or loses permissions.
	principals = []Param{
		{Name: "ServicePrincipalName", Aliases: []string{"SPN"}, Type: String, Mandatory: true, Sets: []string{"ByServicePrincipal"},
			Help: "Application id of a service, a GUID: 00000002-0000-0ff1-ce00-000000000000 is Exchange Online, 00000003-0000-0ff1-ce00-000000000000 SharePoint Online."},
		{Name: "ObjectId", Type: String, Mandatory: true, Sets: []string{"ByObject"}, Help: "Object id of a principal, a GUID."},
	}

	// keyPermissions are those of Azure's access policies.
	keyPermissions = []string{"all", "get", "list", "create", "import", "update", "delete", "backup", "restore", "recover", "purge",
		"wrapKey", "unwrapKey", "encrypt", "decrypt", "sign", "verify"}
)

func vaultCmdlets() []*Cmdlet {
	emits := vaultObject(Vault{}).names()
	return []*Cmdlet{
		{
			Name: "New-AzKeyVault", Aliases: generations("New-AzKeyVault"), Run: newVault, Emits: emits, Changes: true,
			Synopsis: "Makes a key vault. Who makes it gets all permissions to its keys.",
			Example:  "New-AzKeyVault -VaultName Contoso-O365EX-NA-VaultA1 -ResourceGroupName Contoso-RG -Location 'West US' -Sku Premium -EnablePurgeProtection",
			Params: []Param{vaultName,
				{Name: "ResourceGroupName", Type: String, Position: 2, Mandatory: true, Help: "Resource group of the vault; it need not be made first."},
				{Name: "Location", Type: String, Position: 3, Mandatory: true, Help: "A region, such as 'West US 2'."},
				{Name: "Sku", Type: String, Values: []string{"Standard", "Premium"}, Help: "Premium vaults hold HSM keys. Standard unless given."},
				{Name: "EnablePurgeProtection", Type: Switch, Help: "Nobody can purge the vault or its keys before their retention ends."}},
		},
		{
			Name: "Get-AzKeyVault", Aliases: generations("Get-AzKeyVault"), Run: getVault, Emits: emits,
			Synopsis: "Shows one key vault, or all.",
			Example:  "Get-AzKeyVault -VaultName Contoso-O365EX-NA-VaultA1",
			Params: []Param{optional(vaultName),
				{Name: "ResourceGroupName", Type: String, Position: 2, Help: "Only vaults of this resource group."}},
		},
		{
			Name: "Set-AzKeyVaultAccessPolicy", Aliases: generations("Set-AzKeyVaultAccessPolicy"), Run: setAccess, Changes: true,
			Synopsis: "Gives a principal exactly these permissions to the keys of a vault.",
			Example:  "Set-AzKeyVaultAccessPolicy -VaultName Contoso-O365EX-NA-VaultA1 -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000",
			Sets:     []string{"ByServicePrincipal", "ByObject"},
			Params: append([]Param{vaultName,
				{Name: "PermissionsToKeys", Type: Strings, Mandatory: true, Values: keyPermissions, Help: "Permissions; the service needs wrapKey, unwrapKey and get."}}, principals...),
		},
		{
			Name: "Remove-AzKeyVaultAccessPolicy", Aliases: generations("Remove-AzKeyVaultAccessPolicy"), Run: removeAccess, Changes: true, Confirms: true,
			Synopsis: "Takes all permissions to a vault from a principal.",
			Example:  "Remove-AzKeyVaultAccessPolicy -VaultName Contoso-O365EX-NA-VaultA1 -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000",
			Sets:     []string{"ByServicePrincipal", "ByObject"},
			Params:   append([]Param{vaultName}, principals...),
		},
	}
}

// optional is p for a cmdlet that works without it.
func optional(p Param) Param {
	p.Mandatory = false
	return p
}

var vaultView = &View{List: true, Columns: []Column{
	{"Vault Name", "VaultName"}, {"Resource Group Name", "ResourceGroupName"}, {"Location", "Location"}, {"Resource ID", "ResourceId"},
	{"Vault URI", "VaultUri"}, {"SKU", "Sku"}, {"Soft Delete Retention Period (days)", "SoftDeleteRetentionInDays"},
	{"Purge Protection Enabled?", "EnablePurgeProtection"}, {"Access Policies", "AccessPolicies"}}}

func vaultObject(v Vault) *Object {
	var policies []any
	for _, a := range v.Access {
		policies = append(policies, &Object{Properties: []Property{{"ObjectId", a.Principal}, {"PermissionsToKeys", list(a.Keys)}}})
	}
	return &Object{View: vaultView, Properties: []Property{
		{"VaultName", v.Name}, {"ResourceGroupName", v.ResourceGroup}, {"Location", v.Location}, {"ResourceId", v.ID},
		{"VaultUri", v.URI}, {"Sku", v.SKU}, {"EnablePurgeProtection", v.PurgeProtection},
		{"EnableSoftDelete", true}, {"SoftDeleteRetentionInDays", int64(v.RetentionDays)}, {"AccessPolicies", list(policies)},
	}}
}

func newVault(ctx context.Context, c *Call) error {
	v := Vault{Name: c.text("VaultName"), ResourceGroup: c.text("ResourceGroupName"), Location: c.text("Location"),
		SKU: strings.ToLower(c.text("Sku")), PurgeProtection: c.flag("EnablePurgeProtection")}
	if v.SKU == "" {
		v.SKU = "standard"
	}
	if err := c.confirm(ctx, "Make key vault %s", v.Name); err != nil {
		return err
	}
	made, err := c.Vaults.CreateVault(ctx, v)
	if err != nil {
		return err
	}
	if len(v.Name) > longName {
		c.warn("vault name %s has %d characters; Azure itself allows %d", v.Name, len(v.Name), longName)
	}
	return c.emit(vaultObject(made))
}

func getVault(ctx context.Context, c *Call) error {
	if c.has("VaultName") {
		v, err := c.Vaults.ShowVault(ctx, c.text("VaultName"))
		if err == nil && c.has("ResourceGroupName") && !strings.EqualFold(v.ResourceGroup, c.text("ResourceGroupName")) {
			err = fail.New(api.NotFound, "resource group %q has no vault %q", c.text("ResourceGroupName"), v.Name)
		}
		if err != nil {
			return err
		}
		return c.emit(vaultObject(v))
	}
	all, err := c.Vaults.ListVaults(ctx)
	if err != nil {
		return err
	}
	for _, v := range all {
		if c.has("ResourceGroupName") && !strings.EqualFold(v.ResourceGroup, c.text("ResourceGroupName")) {
			continue
		}
		if err := c.emit(vaultObject(v)); err != nil {
			return err
		}
	}
	return nil
}

var guidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// principal returns whom the parameters name.
func (c *Call) principal() (string, error) {
	id := c.text("ServicePrincipalName") + c.text("ObjectId")
	if !guidForm.MatchString(id) {
		return "", fail.New(api.InvalidArgument, "%.100q is no id of a principal", id).
			WithHint("name a service by its application id, a GUID such as 00000002-0000-0ff1-ce00-000000000000")
	}
	return strings.ToLower(id), nil
}

func setAccess(ctx context.Context, c *Call) error {
	principal, err := c.principal()
	if err != nil {
		return err
	}
	permissions := c.texts("PermissionsToKeys")
	if err := c.confirm(ctx, "Give %s the permissions %s to vault %s", principal, strings.Join(permissions, ", "), c.text("VaultName")); err != nil {
		return err
	}
	return c.Vaults.SetAccess(ctx, c.text("VaultName"), Access{Principal: principal, Keys: permissions})
}

func removeAccess(ctx context.Context, c *Call) error {
	principal, err := c.principal()
	if err != nil {
		return err
	}
	c.warnNeeded(ctx, c.text("VaultName"), "", "")
	if err := c.confirm(ctx, "Take all permissions to vault %s from %s", c.text("VaultName"), principal); err != nil {
		return err
	}
	return c.Vaults.SetAccess(ctx, c.text("VaultName"), Access{Principal: principal})
}

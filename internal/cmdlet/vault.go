package cmdlet

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"keyroll/api"
	"keyroll/internal/fail"
)

// azureNameLength is the longest name that Azure itself allows for a vault.
const azureNameLength = 24

var (
	vaultName = Param{Name: "VaultName", Aliases: []string{"Name"}, Type: String, Position: 1, Mandatory: true, Piped: true,
		Help: "Name of the vault: 3 to 127 letters, digits, hyphens and underscores."}

	// principals are the parameters that name the principal whose permissions change.
	principals = []Param{
		{Name: "ServicePrincipalName", Aliases: []string{"SPN"}, Type: String, Mandatory: true, Sets: []string{"ByServicePrincipalName"},
			Help: "Application id of a service, a GUID: 00000002-0000-0ff1-ce00-000000000000 is Exchange Online, 00000003-0000-0ff1-ce00-000000000000 SharePoint Online, c066d759-24ae-40e7-a56f-027002b5d3e4 M365DataAtRestEncryption."},
		{Name: "ObjectId", Type: String, Mandatory: true, Sets: []string{"ByObjectId"}, Help: "Object id of a principal, a GUID."},
		{Name: "UserPrincipalName", Type: String, Mandatory: true, Sets: []string{"ByUserPrincipalName"}, Help: "User principal name of a person, such as alice@contoso.com, who need not be known before."},
	}
	byPrincipal = []string{"ByServicePrincipalName", "ByObjectId", "ByUserPrincipalName"}

	// keyPermissions are the key permissions of Azure's access policies.
	keyPermissions = []string{"all", "get", "list", "create", "import", "update", "delete", "backup", "restore", "recover", "purge",
		"wrapKey", "unwrapKey", "encrypt", "decrypt", "sign", "verify"}
)

func vaultCmdlets() []*Cmdlet {
	emits := vaultObject(Vault{}).names()
	group := Param{Name: "ResourceGroupName", Type: String, Help: "Resource group of the vault."}
	location := Param{Name: "Location", Type: String, Help: "Region of the vault."}
	force := Param{Name: "Force", Type: Switch, Help: "Do not ask for confirmation."}
	passThru := Param{Name: "PassThru", Type: Switch, Help: "Return $true on success."}
	at := func(p Param, position int) Param { p.Position = position; return p }
	needed := func(p Param) Param { p.Mandatory = true; return p }
	return []*Cmdlet{
		{
			Name: "New-AzKeyVault", Aliases: olderNames("New-AzKeyVault"), Run: newVault, Emits: emits, Changes: true,
			Synopsis: "Creates a key vault in the subscription that Set-AzContext selected. Its creator gets all permissions to its keys.",
			Example:  "New-AzKeyVault -VaultName Contoso-O365EX-NA-VaultA1 -ResourceGroupName Contoso-RG -Location 'West US' -Sku Premium -EnablePurgeProtection",
			Params: []Param{vaultName,
				{Name: "ResourceGroupName", Type: String, Position: 2, Mandatory: true, Help: "Resource group of the vault; it need not be created first."},
				{Name: "Location", Type: String, Position: 3, Mandatory: true, Help: "Region, such as 'West US 2'."},
				{Name: "Sku", Type: String, Values: []string{"Standard", "Premium"}, Help: "Type of the vault; only premium vaults can have HSM keys (default: Standard)."},
				{Name: "SubscriptionId", Type: String, Help: "Subscription of the vault (default: the selected one)."},
				{Name: "EnablePurgeProtection", Type: Switch, Help: "Prevent the vault and its keys from being purged before their retention ends. This is irreversible."},
				{Name: "EnableSoftDelete", Type: Switch, Help: "Accepted; soft delete is always on."},
				{Name: "SoftDeleteRetentionInDays", Type: Int, Help: "Retention of deleted keys in days, 7 to 90 (default: 90)."}},
		},
		{
			Name: "Get-AzKeyVault", Aliases: olderNames("Get-AzKeyVault"), Run: getVault, Emits: emits,
			Synopsis: "Shows one key vault, or all; with -InRemovedState, the deleted vaults that can be recovered.",
			Example:  "Get-AzKeyVault -VaultName Contoso-O365EX-NA-VaultA1",
			Params: []Param{optional(vaultName), at(group, 2), location,
				{Name: "InRemovedState", Type: Switch, Help: "Show deleted vaults."}},
		},
		{
			Name: "Update-AzKeyVault", Aliases: olderNames("Update-AzKeyVault"), Run: updateVault, Emits: emits, Changes: true,
			Synopsis: "Switches purge protection on, irreversibly.",
			Example:  "Update-AzKeyVault -VaultName Contoso-O365EX-NA-VaultA1 -EnablePurgeProtection",
			Params: []Param{vaultName, at(group, 2),
				{Name: "EnablePurgeProtection", Type: Switch, Mandatory: true, Help: "Prevent the vault and its keys from being purged before their retention ends. This is irreversible."}},
		},
		{
			Name: "Remove-AzKeyVault", Aliases: olderNames("Remove-AzKeyVault"), Run: removeVault, Changes: true, Confirms: true,
			Synopsis: "Deletes a key vault; Undo-AzKeyVaultRemoval can recover it until its retention ends. With -InRemovedState it destroys a deleted vault.",
			Example:  "Remove-AzKeyVault -VaultName Contoso-O365EX-NA-VaultA1",
			Params: []Param{vaultName, at(group, 2), at(location, 3),
				{Name: "InRemovedState", Type: Switch, Help: "Destroy a deleted vault without purge protection, irreversibly."}, force, passThru},
		},
		{
			Name: "Undo-AzKeyVaultRemoval", Aliases: olderNames("Undo-AzKeyVaultRemoval"), Run: undoVaultRemoval, Emits: emits, Changes: true,
			Synopsis: "Recovers a deleted key vault with its keys.",
			Example:  "Undo-AzKeyVaultRemoval -VaultName Contoso-Gone -ResourceGroupName rg -Location westus",
			Params:   []Param{vaultName, at(group, 2), at(location, 3)},
		},
		{
			Name: "Set-AzKeyVaultAccessPolicy", Aliases: olderNames("Set-AzKeyVaultAccessPolicy"), Run: setAccess, Changes: true,
			Synopsis: "Gives a principal exactly these permissions to the keys of a vault.",
			Example:  "Set-AzKeyVaultAccessPolicy -VaultName Contoso-O365EX-NA-VaultA1 -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000",
			Sets:     byPrincipal,
			Params: append([]Param{vaultName, at(group, 2),
				needed(Param{Name: "PermissionsToKeys", Type: Strings, Values: keyPermissions, Help: "Permissions; the service needs wrapKey, unwrapKey and get."}),
				passThru}, principals...),
		},
		{
			Name: "Remove-AzKeyVaultAccessPolicy", Aliases: olderNames("Remove-AzKeyVaultAccessPolicy"), Run: removeAccess, Changes: true, Confirms: true,
			Synopsis: "Removes all permissions of a principal to a vault.",
			Example:  "Remove-AzKeyVaultAccessPolicy -VaultName Contoso-O365EX-NA-VaultA1 -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000",
			Sets:     byPrincipal,
			Params:   append([]Param{vaultName, at(group, 2), passThru}, principals...),
		},
	}
}

// optional returns p without Mandatory.
func optional(p Param) Param {
	p.Mandatory = false
	return p
}

var (
	vaultView = &View{List: true, Columns: []Column{
		{"Vault Name", "VaultName"}, {"Resource Group Name", "ResourceGroupName"}, {"Location", "Location"}, {"Resource ID", "ResourceId"},
		{"Vault URI", "VaultUri"}, {"SKU", "Sku"}, {"Soft Delete Enabled?", "EnableSoftDelete"}, {"Soft Delete Retention Period (days)", "SoftDeleteRetentionInDays"},
		{"Purge Protection Enabled?", "EnablePurgeProtection"}, {"Access Policies", "AccessPoliciesText"}}}
	deletedVaultView = &View{List: true, Columns: []Column{
		{"Vault Name", "VaultName"}, {"Location", "Location"}, {"Resource ID", "ResourceId"}, {"Deletion Date", "DeletionDate"}, {"Scheduled Purge Date", "ScheduledPurgeDate"}}}
)

func vaultObject(v Vault) *Object {
	if v.Deleted != nil {
		return &Object{View: deletedVaultView, Properties: []Property{
			{"VaultName", v.Name}, {"ResourceGroupName", v.ResourceGroup}, {"Location", v.Location}, {"ResourceId", v.ID},
			{"EnablePurgeProtection", v.PurgeProtection}, {"DeletionDate", optionalTime(v.Deleted)}, {"ScheduledPurgeDate", optionalTime(v.ScheduledPurge)}}}
	}
	var policies []any
	var text strings.Builder
	for _, a := range v.Access {
		name := a.Name
		if name == "" {
			name = services[strings.ToLower(a.Principal)]
		}
		policies = append(policies, &Object{Properties: []Property{{"ObjectId", a.Principal}, {"DisplayName", name}, {"PermissionsToKeys", list(a.Keys)}}})
		if text.Len() > 0 {
			text.WriteByte('\n')
		}
		fmt.Fprintf(&text, "\nObject ID           : %s\nDisplay Name        : %s\nPermissions to Keys : %s", a.Principal, name, strings.Join(a.Keys, ", "))
	}
	return &Object{View: vaultView, Properties: []Property{
		{"VaultName", v.Name}, {"ResourceGroupName", v.ResourceGroup}, {"Location", v.Location}, {"ResourceId", v.ID},
		{"VaultUri", v.URI}, {"Sku", v.SKU}, {"EnablePurgeProtection", v.PurgeProtection},
		{"EnableSoftDelete", true}, {"SoftDeleteRetentionInDays", int64(v.RetentionDays)}, {"AccessPolicies", list(policies)},
		{"AccessPoliciesText", text.String()},
	}}
}

func newVault(ctx context.Context, c *Call) error {
	v := Vault{Name: c.text("VaultName"), ResourceGroup: c.text("ResourceGroupName"), Location: c.text("Location"), Subscription: c.subscription,
		SKU: strings.ToLower(c.text("Sku")), PurgeProtection: c.flag("EnablePurgeProtection")}
	if v.SKU == "" {
		v.SKU = "standard"
	}
	if c.has("SubscriptionId") {
		if v.Subscription = strings.ToLower(c.text("SubscriptionId")); !guidForm().MatchString(v.Subscription) {
			return invalid("%.100q is not a valid subscription id", v.Subscription).WithHint("a subscription id is a GUID")
		}
	}
	if c.has("SoftDeleteRetentionInDays") {
		days := c.number("SoftDeleteRetentionInDays")
		if days < 7 || days > 90 {
			return invalid("-SoftDeleteRetentionInDays must be 7 to 90, found %d", days)
		}
		v.RetentionDays = int32(days)
	}
	if soft := c.optionalBool("EnableSoftDelete"); soft != nil && !*soft {
		return invalid("soft delete is always on")
	}
	if err := c.confirm(ctx, "Create key vault %s", v.Name); err != nil {
		return err
	}
	made, err := c.Vaults.CreateVault(ctx, v)
	if err != nil {
		return err
	}
	if len(v.Name) > azureNameLength {
		c.warn("vault name %s has %d characters; Azure itself allows %d", v.Name, len(v.Name), azureNameLength)
	}
	if strings.Contains(v.Name, "_") {
		c.warn("vault name %s has an underscore; Azure itself allows none", v.Name)
	}
	return c.emit(vaultObject(made))
}

// isElsewhere reports whether a vault is not in the resource group or region that the
// parameters name.
func (c *Call) isElsewhere(v Vault) bool {
	normal := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "")) }
	return c.has("ResourceGroupName") && !strings.EqualFold(v.ResourceGroup, c.text("ResourceGroupName")) ||
		c.has("Location") && normal(v.Location) != normal(c.text("Location"))
}

func (c *Call) elsewhereError(name string) error {
	return fail.New(api.NotFound, "vault %q is in another resource group or region", name).WithHint("Get-AzKeyVault -VaultName %s shows both", name)
}

// vault returns the vault that -VaultName names, and refuses one in another resource
// group or region.
func (c *Call) vault(ctx context.Context) (Vault, error) {
	v, err := c.Vaults.ShowVault(ctx, c.text("VaultName"))
	if err == nil && c.isElsewhere(v) {
		err = c.elsewhereError(v.Name)
	}
	return v, err
}

func getVault(ctx context.Context, c *Call) error {
	name, removed := c.text("VaultName"), c.flag("InRemovedState")
	if name != "" && !removed {
		v, err := c.vault(ctx)
		if err != nil {
			return err
		}
		return c.emit(vaultObject(v))
	}
	ask := c.Vaults.ListVaults
	if removed {
		ask = c.Vaults.ListDeletedVaults
	}
	all, err := ask(ctx)
	if err != nil {
		return err
	}
	found := false
	for _, v := range all {
		if c.isElsewhere(v) || name != "" && !strings.EqualFold(v.Name, name) {
			continue
		}
		found = true
		if err := c.emit(vaultObject(v)); err != nil {
			return err
		}
	}
	if name != "" && !found {
		return fail.New(api.NotFound, "no deleted vault is named %.150q", name).WithHint("Get-AzKeyVault -InRemovedState lists them")
	}
	return nil
}

func updateVault(ctx context.Context, c *Call) error {
	if !c.flag("EnablePurgeProtection") {
		return fail.New(api.Conflict, "purge protection cannot be switched off")
	}
	v, err := c.vault(ctx)
	if err != nil {
		return err
	}
	if err := c.confirm(ctx, "Switch on purge protection of vault %s, irreversibly", v.Name); err != nil {
		return err
	}
	if v, err = c.Vaults.ProtectVault(ctx, v.Name); err != nil {
		return err
	}
	return c.emit(vaultObject(v))
}

func removeVault(ctx context.Context, c *Call) error {
	name, ask := c.text("VaultName"), !c.flag("Force")
	if c.flag("InRemovedState") {
		c.warnNeeded(ctx, name, "", "")
		if err := c.confirmIf(ctx, ask, "Destroy deleted vault %s with all its keys, irreversibly", name); err != nil {
			return err
		}
		return c.emitSuccess(c.Vaults.PurgeVault(ctx, name))
	}
	if _, err := c.vault(ctx); err != nil {
		return err
	}
	c.warnNeeded(ctx, name, "", "")
	if err := c.confirmIf(ctx, ask, "Delete vault %s with all its keys", name); err != nil {
		return err
	}
	return c.emitSuccess(c.Vaults.RemoveVault(ctx, name))
}

// emitSuccess emits $true after success if -PassThru is given.
func (c *Call) emitSuccess(err error) error {
	if err != nil || !c.flag("PassThru") {
		return err
	}
	return c.emit(true)
}

func undoVaultRemoval(ctx context.Context, c *Call) error {
	name := c.text("VaultName")
	if err := c.confirm(ctx, "Recover vault %s", name); err != nil {
		return err
	}
	v, err := c.Vaults.RecoverVault(ctx, name)
	if err != nil {
		return err
	}
	return c.emit(vaultObject(v))
}

var guidForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
})

// services are the principals under which the service accesses vaults, with their
// names in the documentation.
var services = map[string]string{
	exchangeID: "Office 365 Exchange Online", sharePointID: "Office 365 SharePoint Online", workloadsID: "M365DataAtRestEncryption",
}

const (
	exchangeID   = "00000002-0000-0ff1-ce00-000000000000"
	sharePointID = "00000003-0000-0ff1-ce00-000000000000"
	workloadsID  = "c066d759-24ae-40e7-a56f-027002b5d3e4"
)

// principal returns the principal that the parameters name, without permissions.
func (c *Call) principal() (Access, error) {
	if c.has("UserPrincipalName") {
		return Access{Name: c.text("UserPrincipalName")}, nil
	}
	id := c.text("ServicePrincipalName") + c.text("ObjectId")
	if !guidForm().MatchString(id) {
		return Access{}, invalid("%.100q is not a valid id of a principal", id).
			WithHint("name a service by its application id, a GUID such as 00000002-0000-0ff1-ce00-000000000000")
	}
	return Access{Principal: strings.ToLower(id)}, nil
}

// warnTaken warns if the new permissions of the service in a vault are insufficient.
func (c *Call) warnTaken(ctx context.Context, vault string, a Access) {
	if services[a.Principal] == "" || slices.Contains(a.Keys, "all") {
		return
	}
	for _, needed := range []string{"get", "wrapKey", "unwrapKey"} {
		if !slices.Contains(a.Keys, needed) {
			c.warnNeeded(ctx, vault, "", "")
			return
		}
	}
}

func setAccess(ctx context.Context, c *Call) error {
	a, err := c.principal()
	if err != nil {
		return err
	}
	a.Keys = c.texts("PermissionsToKeys")
	vault := c.text("VaultName")
	c.warnTaken(ctx, vault, a)
	if err := c.confirm(ctx, "Give %s the permissions %s to vault %s", a.Principal+a.Name, strings.Join(a.Keys, ", "), vault); err != nil {
		return err
	}
	return c.emitSuccess(c.Vaults.SetAccess(ctx, vault, a))
}

func removeAccess(ctx context.Context, c *Call) error {
	a, err := c.principal()
	if err != nil {
		return err
	}
	vault := c.text("VaultName")
	c.warnTaken(ctx, vault, a)
	if err := c.confirm(ctx, "Remove all permissions to vault %s from %s", vault, a.Principal+a.Name); err != nil {
		return err
	}
	return c.emitSuccess(c.Vaults.SetAccess(ctx, vault, a))
}

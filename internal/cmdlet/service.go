package cmdlet

import (
	"context"
	"crypto/rsa"
	"time"

	"keyroll/api"
)

// Service is the part of keyroll's service that the cmdlets use; *client.Client
// implements it. An *api.Problem among its errors keeps its code and hint.
type Service interface {
	CreateMailbox(context.Context, api.CreateMailboxInput) (api.Mailbox, error)
	ListMailboxes(context.Context, api.ListInput) (api.List[api.Mailbox], error)
	ShowMailbox(context.Context, api.MailboxInput) (api.Mailbox, error)
	AssignMailbox(context.Context, api.AssignMailboxInput) (api.Mailbox, error)

	CreateSite(context.Context, api.CreateSiteInput) (api.Site, error)
	ListSites(context.Context, api.ListInput) (api.List[api.Site], error)
	ShowSite(context.Context, api.SiteInput) (api.Site, error)

	CreatePolicy(context.Context, api.CreatePolicyInput) (api.Policy, error)
	CheckKeys(context.Context, api.CheckKeysInput) (api.KeyCheck, error)
	RegisterSites(context.Context, api.RegisterSitesInput) (api.Policy, error)
	ListPolicies(context.Context, api.ListInput) (api.List[api.Policy], error)
	ShowPolicy(context.Context, api.PolicyInput) (api.Policy, error)
	RefreshPolicy(context.Context, api.RefreshPolicyInput) (api.Refreshed, error)
	UpdatePolicy(context.Context, api.UpdatePolicyInput) (api.Refreshed, error)
	SetPolicy(context.Context, api.SetPolicyInput) (api.Policy, error)
	ReplacePolicyKeys(context.Context, api.ReplacePolicyKeysInput) (api.Refreshed, error)
	LeavePolicy(context.Context, api.LeavePolicyInput) (api.Refreshed, error)
	TestPolicy(context.Context, api.PolicyInput) (api.List[api.Probe], error)
	AssignPolicy(context.Context, api.AssignPolicyInput) (api.Policy, error)
	ShowAssignment(context.Context, api.None) (api.Policy, error)
	RestoreSites(context.Context, api.RestoreSitesInput) (api.Policy, error)
	RequestPurge(context.Context, api.RequestPurgeInput) (api.Purge, error)

	CreateApplication(context.Context, api.CreateApplicationInput) (api.CreatedApplication, error)
	ListApplications(context.Context, api.None) (api.List[api.ApplicationInfo], error)
	RemoveApplication(context.Context, api.RemoveApplicationInput) (api.None, error)
	AddApplicationCredential(context.Context, api.AddApplicationCredentialInput) (api.CreatedCredential, error)
	RemoveApplicationCredential(context.Context, api.RemoveApplicationCredentialInput) (api.None, error)

	ListGeos(context.Context, api.ListInput) (api.List[api.Geo], error)
	ListKeyUsage(context.Context, api.KeyUsageInput) (api.List[api.KeyUsage], error)
}

// Vaults is the part of key vaults and their management that the cmdlets use. Vaults
// are identified by their bare name. Errors are *fail.Error.
type Vaults interface {
	// CreateVault makes a vault; its creator gets all key permissions.
	CreateVault(context.Context, Vault) (Vault, error)
	ShowVault(ctx context.Context, name string) (Vault, error)
	ListVaults(context.Context) ([]Vault, error)
	// ProtectVault switches purge protection on, irreversibly.
	ProtectVault(ctx context.Context, name string) (Vault, error)
	// RemoveVault deletes a vault; it stays recoverable.
	RemoveVault(ctx context.Context, name string) error
	// ListDeletedVaults lists the vaults that can be recovered.
	ListDeletedVaults(context.Context) ([]Vault, error)
	RecoverVault(ctx context.Context, name string) (Vault, error)
	// PurgeVault destroys a deleted vault that has no purge protection.
	PurgeVault(ctx context.Context, name string) error
	// SetAccess gives a principal exactly these key permissions; an empty list
	// removes all of them.
	SetAccess(ctx context.Context, vault string, access Access) error

	// RegisterFeature registers a subscription for a feature of Azure, such as
	// mandatoryRetentionPeriodEnabled of Microsoft.Resources. An empty
	// subscription is the tenant's default one, here and below.
	RegisterFeature(ctx context.Context, subscription, namespace, name string) (Feature, error)
	ShowFeature(ctx context.Context, subscription, namespace, name string) (Feature, error)
	// RegisterProvider registers a subscription for a resource provider, such
	// as Microsoft.KeyVault, and returns its registration state.
	RegisterProvider(ctx context.Context, subscription, namespace string) (state string, err error)

	CreateKey(ctx context.Context, vault, name string, spec KeySpec) (Key, error)
	// ImportKey makes a key version from an RSA private key.
	// Size is ignored.
	ImportKey(ctx context.Context, vault, name string, private *rsa.PrivateKey, spec KeySpec) (Key, error)
	// ShowKey returns the newest version when version is empty.
	ShowKey(ctx context.Context, vault, name, version string) (Key, error)
	// ListKeys returns the newest version of each key, without type and size.
	ListKeys(ctx context.Context, vault string) ([]Key, error)
	// ListKeyVersions returns every version, without type and size.
	ListKeyVersions(ctx context.Context, vault, name string) ([]Key, error)
	// UpdateKey changes the attributes that spec has; type and size are ignored.
	UpdateKey(ctx context.Context, vault, name, version string, spec KeySpec) (Key, error)
	BackupKey(ctx context.Context, vault, name string) ([]byte, error)
	RestoreKey(ctx context.Context, vault string, backup []byte) (Key, error)
	RemoveKey(ctx context.Context, vault, name string) (Key, error)
	RecoverKey(ctx context.Context, vault, name string) (Key, error)
	// ListDeletedKeys lists the keys that can be recovered, as ListKeys does.
	ListDeletedKeys(ctx context.Context, vault string) ([]Key, error)
	ShowDeletedKey(ctx context.Context, vault, name string) (Key, error)
	// PurgeKey destroys a deleted key of a vault that has no purge protection.
	PurgeKey(ctx context.Context, vault, name string) error
}

// Vault is a key vault as its management shows it.
type Vault struct {
	Name, ResourceGroup, Location string
	Subscription                  string // a GUID; empty for the tenant's default one
	SKU                           string // standard or premium
	PurgeProtection               bool
	RetentionDays                 int32 // 7 to 90; 0 for 90
	// The following are set only for an existing vault.
	ID, URI string
	Access  []Access
	// Deleted and ScheduledPurge are set for a deleted vault, which has neither
	// SKU, URI, retention nor access policies.
	Deleted, ScheduledPurge *time.Time
}

// Access is the permissions of one principal for the keys of a vault.
type Access struct {
	// Principal is an application or object id, a GUID.
	Principal string
	// Name is a person's user principal name or a service's display name. SetAccess
	// uses it if Principal is empty, for a person, who need not be known before.
	Name string
	Keys []string // permissions, in Azure's spelling
}

// Feature is a feature of Azure that a subscription may be registered for.
type Feature struct {
	Namespace, Name string
	State           string // Registered or NotRegistered
}

// KeySpec describes a key version to create, or a change of one. Nil and empty
// members mean the vault's default, or no change.
type KeySpec struct {
	Type       string // RSA, EC, RSA-HSM or EC-HSM
	Size       int32  // bits; RSA only
	Operations []string
	Enabled    *bool
	NotBefore  *time.Time
	Expires    *time.Time
}

// Key is a key version.
type Key struct {
	Vault, Name, Version string
	ID                   string // the key identifier, with the version
	Type                 string // empty when not known
	Size                 int    // bits; 0 when not known
	Curve                string
	Operations           []string
	Enabled              bool
	NotBefore, Expires   *time.Time
	Created, Updated     *time.Time
	RecoveryLevel        string
	// Deleted and ScheduledPurge are set for a deleted key.
	Deleted, ScheduledPurge *time.Time
}

// Package keycheck has the rules for the customer keys of a policy: what makes a key
// unusable, and what a customer is warned about.
//
// It reads keys and the properties of vaults, and changes nothing. Start reading at
// checks.
package keycheck

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/rootkey"
)

// Roots reads customer keys.
type Roots interface {
	Key(ctx context.Context, tenant int64, id rootkey.Identity, kv envelope.KeyVersion) (rootkey.KeyInfo, error)
	// Describe returns what the management plane of a vault reports about it.
	Describe(ctx context.Context, tenant int64, id rootkey.Identity, vault string) (rootkey.VaultInfo, error)
	URI(kv envelope.KeyVersion) string
}

// Checker checks keys.
type Checker struct {
	Roots Roots
	// OperatorVault is the URL of the vault that holds the availability keys, empty
	// if they are not in a vault.
	OperatorVault string
	// Strict refuses keys that would otherwise be accepted with a warning, and keys
	// without the recovery level Recoverable+ProtectedSubscription.
	Strict bool
	Now    func() time.Time
}

// candidate is a key that a policy is to use, with its vault.
type candidate struct {
	rootkey.KeyInfo
	vault   rootkey.VaultInfo
	unknown error // why only the name of the vault is known; nil: all is known
}

// check is a rule for the keys of a policy. Exactly one of its three functions is
// set. It returns what is wrong, empty if nothing is; names calls no vault.
type check struct {
	name    string
	code    api.Code // of a refusal
	warning bool     // accepts the keys with a warning, unless checks are strict
	strict  bool     // is made only where checks are strict
	ends    bool     // a key that it refuses is not checked any further
	names   func(a, b envelope.KeyVersion) string
	key     func(c candidate, now time.Time) string
	pair    func(a, b candidate) string
	// repair is the hint: {vault}, {key}, {group}, {subscription} and {principal}
	// are replaced by the vault's name, by -VaultName … -Name … -Version …, and by
	// what the management plane reported.
	repair string
}

const (
	anotherVault = "create another vault with a key in it, and name that key: New-AzKeyVault -VaultName NAME -ResourceGroupName GROUP -Location LOCATION -Sku Premium -EnablePurgeProtection"
	anotherKey   = "create one under a new name: Add-AzKeyVaultKey -VaultName {vault} -Name NAME -Destination HSM -KeyOps wrapKey,unwrapKey"
	grant        = "Set-AzKeyVaultAccessPolicy -VaultName {vault} -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName {principal}"
	protect      = "Update-AzKeyVault -VaultName {vault} -ResourceGroupName {group} -EnablePurgeProtection"
	never        = `Update-AzKeyVaultKey {key} -Expires (Get-Date -Date "12/31/9999")`
	reader       = "give this keyroll's Azure identity the role Reader on the vault: New-AzRoleAssignment -ObjectId ID -RoleDefinitionName Reader -Scope (Get-AzKeyVault -VaultName {vault}).ResourceId"
	feature      = "Set-AzContext -SubscriptionId {subscription}; Register-AzProviderFeature -FeatureName mandatoryRetentionPeriodEnabled -ProviderNamespace Microsoft.Resources"
)

// checks has all checks in the order in which they are made (Customer Key
// set-up documentation; Azure Key Vault documentation, deletion recovery levels).
var checks = []check{
	{name: "two vaults", code: api.InvalidArgument, names: oneVault, repair: anotherVault},
	{name: "type", code: api.KeyUnusable, ends: true, key: notRSA, repair: anotherKey},
	{name: "size", code: api.KeyUnusable, key: short, repair: anotherKey},
	{name: "public key", code: api.KeyUnusable, key: unpublished, repair: anotherKey},
	{name: "enabled", code: api.KeyUnusable, key: disabled, repair: "Update-AzKeyVaultKey {key} -Enable $true"},
	{name: "not before", code: api.KeyUnusable, key: early, repair: "Update-AzKeyVaultKey {key} -NotBefore (Get-Date)"},
	{name: "expiry", code: api.KeyUnusable, key: expires, repair: never},
	{name: "wrapKey", code: api.KeyUnusable, key: without("wrapKey"), repair: "Update-AzKeyVaultKey {key} -KeyOps wrapKey,unwrapKey"},
	{name: "unwrapKey", code: api.KeyUnusable, key: without("unwrapKey"), repair: "Update-AzKeyVaultKey {key} -KeyOps wrapKey,unwrapKey"},
	{name: "vault known", code: api.KeyUnusable, warning: true, key: unknown, repair: "check it yourself: Get-AzKeyVault -VaultName {vault}"},
	{name: "management plane", code: api.KeyUnusable, warning: true, key: unmanaged, repair: reader},
	{name: "soft delete", code: api.KeyUnusable, key: noSoftDelete, repair: "Update-AzKeyVault -VaultName {vault} -ResourceGroupName {group} -EnableSoftDelete"},
	{name: "purge protection", code: api.KeyUnusable, key: noPurgeProtection, repair: protect},
	{name: "recovery level", code: api.KeyUnusable, key: purgeable, repair: protect},
	{name: "recovery level, strict", code: api.KeyUnusable, strict: true, key: unprotected, repair: feature},
	{name: "permissions", code: api.VaultDenied, key: missing, repair: grant},
	{name: "permissions, no more", code: api.KeyUnusable, warning: true, key: surplus, repair: grant},
	{name: "two subscriptions", code: api.KeyUnusable, warning: true, pair: oneSubscription, repair: anotherVault},
	{name: "two regions", code: api.KeyUnusable, warning: true, pair: oneRegion, repair: anotherVault},
}

func oneVault(a, b envelope.KeyVersion) string {
	if !strings.EqualFold(a.Vault, b.Vault) {
		return ""
	}
	return fmt.Sprintf("both keys are in vault %q; a policy needs two keys in two vaults, so that losing one vault loses no data", a.Vault)
}

func notRSA(c candidate, _ time.Time) string {
	if c.Type == "RSA" || c.Type == "RSA-HSM" {
		return ""
	}
	return fmt.Sprintf("is of type %s; a customer key is an RSA key", c.Type)
}

// minimumBits is the smallest RSA key that may serve as a customer key (NIST SP
// 800-131A revision 2 section 6; also the smallest that Azure makes).
const minimumBits = 2048

func short(c candidate, _ time.Time) string {
	if c.Bits >= minimumBits {
		return ""
	}
	return fmt.Sprintf("has %d bits; a customer key has %d or more", c.Bits, minimumBits)
}

func unpublished(c candidate, _ time.Time) string { return c.CheckPublic() }

func disabled(c candidate, _ time.Time) string {
	if c.Enabled {
		return ""
	}
	return "is disabled"
}

const timeFormat = "2006-01-02 15:04:05Z07:00"

func early(c candidate, now time.Time) string {
	if c.NotBefore == nil || !now.Before(*c.NotBefore) {
		return ""
	}
	return "is not valid before " + c.NotBefore.UTC().Format(timeFormat)
}

// noExpiry is the first timeFormat that is 9999-12-31 anywhere: an expiry that was
// once set can be changed but not removed.
var noExpiry = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).Add(-14 * time.Hour)

func expires(c candidate, now time.Time) string {
	switch {
	case c.Expires == nil || !c.Expires.Before(noExpiry):
		return ""
	case !now.Before(*c.Expires):
		return "expired at " + c.Expires.UTC().Format(timeFormat)
	}
	return fmt.Sprintf("expires at %s; a customer key has no expiry, or 9999-12-31", c.Expires.UTC().Format(timeFormat))
}

func without(operation string) func(candidate, time.Time) string {
	return func(c candidate, _ time.Time) string {
		if slices.Contains(c.Ops, operation) {
			return ""
		}
		return "does not allow the operation " + operation
	}
}

func unknown(c candidate, _ time.Time) string {
	switch {
	case rootkey.IsExternal(c.KeyVersion.Vault):
		return ""
	case c.unknown != nil:
		return fmt.Sprintf("could not be checked for subscription, region, protection and permissions: %v", c.unknown)
	case c.vault.Principal == "":
		return "could not be checked for permissions: the vault does not show the service's permissions"
	}
	return ""
}

// unmanaged reports what only the management plane of a vault in Azure shows. The
// rest is known without it: the recovery level of the key says that it cannot be
// lost or purged, and the permissions are proved by their use before anything is
// stored.
func unmanaged(c candidate, _ time.Time) string {
	if c.unknown == nil || !rootkey.IsExternal(c.KeyVersion.Vault) {
		return ""
	}
	return fmt.Sprintf("could not be checked for the subscription and the region of its vault, which only the management plane of Azure shows: %v", c.unknown)
}

func noSoftDelete(c candidate, _ time.Time) string {
	if c.unknown != nil || c.vault.SoftDelete {
		return ""
	}
	return "can be lost: its vault has no soft delete"
}

func noPurgeProtection(c candidate, _ time.Time) string {
	if c.unknown != nil || c.vault.PurgeProtection {
		return ""
	}
	return "can be purged: its vault has no purge protection"
}

func purgeable(c candidate, _ time.Time) string {
	if c.RecoveryLevel != "" && !strings.Contains(c.RecoveryLevel, "Purgeable") {
		return ""
	}
	return fmt.Sprintf("has the recovery level %q; a customer key cannot be purged", c.RecoveryLevel)
}

const protectedSubscription = "Recoverable+ProtectedSubscription"

func unprotected(c candidate, _ time.Time) string {
	if c.RecoveryLevel == protectedSubscription {
		return ""
	}
	return fmt.Sprintf("has the recovery level %q; this keyroll was started to require %s", c.RecoveryLevel, protectedSubscription)
}

// needed are the operations that the service uses on a customer key.
var needed = []string{"get", "wrapKey", "unwrapKey"}

func missing(c candidate, _ time.Time) string {
	if c.vault.Principal == "" {
		return ""
	}
	return permissions(c, "lacks", needed, func(p string) bool { return !holds(c.vault.Permissions, p) && !holds(c.vault.Permissions, "all") })
}

func surplus(c candidate, _ time.Time) string {
	return permissions(c, "has more than it needs", c.vault.Permissions, func(p string) bool { return !holds(needed, p) })
}

func holds(list []string, permission string) bool {
	return slices.ContainsFunc(list, func(p string) bool { return strings.EqualFold(p, permission) })
}

func permissions(c candidate, what string, of []string, wrong func(string) bool) string {
	var found []string
	for _, p := range of {
		if wrong(p) {
			found = append(found, p)
		}
	}
	if found == nil {
		return ""
	}
	return fmt.Sprintf("is used by service principal %s, which %s: %s", c.vault.Principal, what, strings.Join(found, ", "))
}

func oneSubscription(a, b candidate) string {
	if a.unknown != nil || b.unknown != nil || !strings.EqualFold(a.vault.Subscription, b.vault.Subscription) {
		return ""
	}
	return fmt.Sprintf("vaults %q and %q are both in subscription %s; two subscriptions are not lost at once", a.KeyVersion.Vault, b.KeyVersion.Vault, a.vault.Subscription)
}

func oneRegion(a, b candidate) string {
	if a.unknown != nil || b.unknown != nil || !strings.EqualFold(a.vault.Location, b.vault.Location) {
		return ""
	}
	return fmt.Sprintf("vaults %q and %q are both in region %s; two regions do not fail at once", a.KeyVersion.Vault, b.KeyVersion.Vault, a.vault.Location)
}

// findings are the refusals and the warnings of the checks. With all set, checking
// continues after a refusal.
type findings struct {
	all      bool
	refusals []error
	warnings []string
}

// refuse adds a refusal and reports whether to continue.
func (f *findings) refuse(err error) bool {
	f.refusals = append(f.refusals, err)
	return f.all
}

// checkNames makes the checks that call no vault.
func (f *findings) checkNames(a, b envelope.KeyVersion) {
	for _, row := range checks {
		if row.names == nil {
			continue
		}
		if wrong := row.names(a, b); wrong != "" && !f.refuse(row.refusal(wrong, candidate{})) {
			return
		}
	}
}

// checkNotOperators refuses the vault that holds the availability keys: it belongs
// to the operator, who would control a customer key in it. An embedded vault is never
// that vault, even if one of another keyroll has its name.
func (c *Checker) checkNotOperators(f *findings, names [2]envelope.KeyVersion) {
	operators, err := url.Parse(c.OperatorVault)
	if c.OperatorVault == "" || err != nil {
		return // a malformed URL has failed at the start already
	}
	for _, kv := range names {
		u, err := url.Parse(kv.Vault)
		if err != nil || !rootkey.IsExternal(kv.Vault) || !strings.EqualFold(u.Hostname(), operators.Hostname()) {
			continue
		}
		refusal := fail.New(api.InvalidArgument, "vault %q holds the availability keys of this keyroll; it cannot hold a customer key", kv.Vault).
			WithHint("name a key in a vault of your own")
		if !f.refuse(refusal) {
			return
		}
	}
}

// checkKeys makes the other checks of both keys.
func (f *findings) checkKeys(keys [2]candidate, now time.Time, strict bool) {
	var ended [2]bool
	for _, row := range checks {
		for i, c := range keys {
			wrong := ""
			switch {
			case ended[i] || row.strict && !strict:
			case row.key != nil:
				if wrong = row.key(c, now); wrong != "" {
					wrong = describeKey(c.KeyVersion) + " " + wrong
				}
			case row.pair != nil && i == 1:
				wrong = row.pair(keys[0], c)
			}
			switch {
			case wrong == "":
			case row.warning && !strict:
				f.warnings = append(f.warnings, wrong+"; "+row.hint(c))
			default:
				ended[i] = row.ends
				if !f.refuse(row.refusal(wrong, c)) {
					return
				}
			}
		}
	}
}

func (row check) refusal(wrong string, c candidate) error {
	return fail.New(row.code, "%s", wrong).WithHint("%s", row.hint(c))
}

// hint fills in the placeholders of repair.
func (row check) hint(c candidate) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(c.KeyVersion.Vault, "https://"), ".")
	or := func(value, placeholder string) string {
		if value == "" {
			return placeholder
		}
		return value
	}
	return strings.NewReplacer("{vault}", name, "{key}", fmt.Sprintf("-VaultName %s -Name %s -Version %s", name, c.KeyVersion.Key, c.KeyVersion.Version),
		"{group}", or(c.vault.ResourceGroup, "GROUP"), "{subscription}", or(c.vault.Subscription, "ID"),
		"{principal}", or(c.vault.Principal, "ID")).Replace(row.repair)
}

func describeKey(kv envelope.KeyVersion) string {
	return fmt.Sprintf("key %q version %s in vault %q", kv.Key, kv.Version, kv.Vault)
}

// Pair is the two customer keys that a policy is to use.
type Pair struct {
	Tenant   int64
	Identity rootkey.Identity // that uses the keys
	Kind     api.PolicyKind   // in messages
	// Versionless says that the policy names keys without a version and uses the newest
	// one; otherwise it names each version.
	Versionless        bool
	Primary, Secondary envelope.KeyVersion
}

// Resolve makes the checks of two keys up to the first refusal, and returns the pair with
// the exact versions of both keys, and the warnings.
func (c *Checker) Resolve(ctx context.Context, p Pair) (exact Pair, warnings []string, err error) {
	keys, found, err := c.review(ctx, p, false)
	if err == nil && len(found.refusals) > 0 {
		err = found.refusals[0]
	}
	if err != nil {
		return Pair{}, nil, err
	}
	p.Primary, p.Secondary = keys[0].KeyVersion, keys[1].KeyVersion
	return p, found.warnings, nil
}

// All makes all checks of two keys. It returns every reason for which a policy cannot use
// them, and the warnings. For a key without a version the newest one is checked.
func (c *Checker) All(ctx context.Context, p Pair) (refusals []error, warnings []string, err error) {
	_, found, err := c.review(ctx, p, true)
	return found.refusals, found.warnings, err
}

// review makes the checks of two keys: all of them, or up to the first refusal.
func (c *Checker) review(ctx context.Context, p Pair, all bool) (keys [2]candidate, found findings, err error) {
	found.all = all
	names := [2]envelope.KeyVersion{p.Primary, p.Secondary}
	for _, kv := range names {
		switch {
		case p.Versionless && kv.Version != "":
			found.refuse(fail.New(api.InvalidArgument, "key %s names a version; a %s policy names keys without one", c.Roots.URI(kv), p.Kind).
				WithHint("omit the version: a refresh uses the newest one"))
		case !p.Versionless && kv.Version == "" && !all:
			found.refuse(fail.New(api.InvalidArgument, "key %s names no version; a %s policy needs the exact one", c.Roots.URI(kv), p.Kind).
				WithHint("Get-AzKeyVaultKey shows the versions of a key"))
		}
	}
	if len(found.refusals) == 0 || all {
		found.checkNames(names[0], names[1])
		c.checkNotOperators(&found, names)
	}
	if len(found.refusals) > 0 && !all {
		return keys, found, nil
	}
	keys, failed := c.read(ctx, p, names)
	if ctx.Err() != nil {
		return keys, found, context.Cause(ctx)
	}
	for _, err := range failed {
		if err != nil && !found.refuse(err) {
			return keys, found, nil
		}
	}
	if failed == [2]error{} {
		found.checkKeys(keys, c.Now(), c.Strict)
	}
	return keys, found, nil
}

// read reads both keys and their vaults at the same time.
func (c *Checker) read(ctx context.Context, p Pair, names [2]envelope.KeyVersion) (keys [2]candidate, failed [2]error) {
	var both sync.WaitGroup
	for i, kv := range names {
		both.Go(func() {
			if keys[i].KeyInfo, failed[i] = c.Roots.Key(ctx, p.Tenant, p.Identity, kv); failed[i] == nil {
				keys[i].vault, keys[i].unknown = c.Roots.Describe(ctx, p.Tenant, p.Identity, kv.Vault)
			}
		})
	}
	both.Wait()
	return keys, failed
}

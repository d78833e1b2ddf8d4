package cmdlet

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
)

// scenarios are what a tenant is onboarded for, with the principal under which
// the service then reaches its vaults.
var scenarios = []struct{ name, principal string }{{"MDEP", workloadsID}, {"EXO", exchangeID}, {"SPO", sharePointID}}

func onboardingCmdlets() []*Cmdlet {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	needed := func(name, help string) Param { return Param{Name: name, Type: String, Mandatory: true, Help: help} }
	organization := Param{Name: "OrganizationId", Aliases: []string{"Organization"}, Type: String, Mandatory: true, Help: "Name or id of the tenant; written into the request."}
	emits := []string{"RequestId", "OrganizationId", "Scenario", "OnboardingMode", "ValidationResult", "FailedValidations", "CreatedDate"}
	return []*Cmdlet{
		{
			Name: "New-CustomerKeyOnboardingRequest", Run: newOnboarding, Emits: emits,
			Synopsis: "Looks at two keys and their vaults as a policy will: ValidationResult is Success, or FailedValidations says what to repair. keyroll needs no onboarding: a policy can be made at once.",
			Example:  "New-CustomerKeyOnboardingRequest -OrganizationId contoso -Scenario MDEP -Subscription1 11111111-1111-1111-1111-111111111111 -KeyIdentifier1 https://contoso-a.vault.azure.net/keys/Key001 -Subscription2 22222222-2222-2222-2222-222222222222 -KeyIdentifier2 https://contoso-b.vault.azure.net/keys/Key001 -OnboardingMode Validate",
			Params: []Param{organization,
				{Name: "Scenario", Type: String, Mandatory: true, Values: names, Help: "What for: multi-workload, mailbox or site policies."},
				needed("Subscription1", "Subscription of the first vault, a GUID."),
				needed("KeyIdentifier1", "URI of the first key."),
				needed("Subscription2", "Subscription of the second vault."),
				needed("KeyIdentifier2", "URI of the second key."),
				{Name: "OnboardingMode", Type: String, Values: []string{"Validate", "Enable"}, Help: "Both look and change nothing; Validate unless given."}},
		},
		{
			Name: "Get-CustomerKeyOnboardingRequest", Run: getOnboarding, Emits: emits,
			Synopsis: "Shows the requests that were made in this shell.",
			Example:  "Get-CustomerKeyOnboardingRequest -OrganizationId contoso",
			Params:   []Param{organization, {Name: "RequestId", Type: String, Help: "One request."}},
		},
	}
}

var onboardingView = &View{List: true, Columns: []Column{{"RequestId", "RequestId"}, {"OrganizationId", "OrganizationId"}, {"Scenario", "Scenario"},
	{"OnboardingMode", "OnboardingMode"}, {"ValidationResult", "ValidationResult"}, {"FailedValidations", "FailedValidations"}, {"CreatedDate", "CreatedDate"}}}

// candidate is one of the two keys of a request, with its vault.
type candidate struct {
	Key
	vault        Vault
	subscription string // as named in the request
}

func newOnboarding(ctx context.Context, c *Call) error {
	var pair [2]candidate
	var failed []string
	for i := range pair {
		n := fmt.Sprint(i + 1)
		pair[i].subscription = c.text("Subscription" + n)
		vault, key, version, err := keyParts(c.text("KeyIdentifier" + n))
		if err != nil {
			return err
		}
		if pair[i].Key, err = c.Vaults.ShowKey(ctx, vault, key, version); err == nil {
			pair[i].vault, err = c.Vaults.ShowVault(ctx, vault)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			failed = append(failed, err.Error())
		}
	}
	if failed == nil {
		failed = validate(pair, principalOf(c.text("Scenario")))
	}
	result := "Success"
	if failed != nil {
		result = "Failure"
	}
	mode := c.text("OnboardingMode")
	if mode == "" {
		mode = "Validate"
	}
	now := c.Now()
	o := &Object{View: onboardingView, Properties: []Property{
		{"RequestId", uuid.NewString()}, {"OrganizationId", c.text("OrganizationId")}, {"Scenario", c.text("Scenario")}, {"OnboardingMode", mode},
		{"ValidationResult", result}, {"FailedValidations", list(failed)}, {"CreatedDate", moment(&now)}}}
	c.requests = append(c.requests, o)
	return c.emit(o)
}

func principalOf(scenario string) string {
	for _, s := range scenarios {
		if s.name == scenario {
			return s.principal
		}
	}
	return ""
}

// keyParts reads https://VAULT.DOMAIN/keys/KEY[/VERSION].
func keyParts(identifier string) (vault, key, version string, err error) {
	u, err := url.Parse(identifier)
	if err == nil && u.Scheme == "https" {
		vault, _, _ = strings.Cut(u.Hostname(), ".")
		path, ok := strings.CutPrefix(u.Path, "/keys/")
		if key, version, _ = strings.Cut(path, "/"); ok && vault != "" && key != "" {
			return vault, key, version, nil
		}
	}
	return "", "", "", invalid("%.300q is no identifier of a key", identifier).WithHint("write it as https://VAULT.vault.azure.net/keys/KEY")
}

// never is the one end that a customer key may have.
var never = time.Date(9999, time.December, 31, 0, 0, 0, 0, time.UTC)

// validate names what keeps two keys from being those of a policy, nil for
// nothing: the set-up page's list.
func validate(pair [2]candidate, service string) (failed []string) {
	refuse := func(format string, args ...any) { failed = append(failed, fmt.Sprintf(format, args...)) }
	a, b := pair[0], pair[1]
	if strings.EqualFold(a.vault.Name, b.vault.Name) {
		refuse("both keys stand in vault %s: a policy needs two vaults", a.vault.Name)
	}
	if strings.EqualFold(a.subscription, b.subscription) {
		refuse("both vaults are in subscription %s: name two", a.subscription)
	}
	if a.vault.Location == b.vault.Location {
		refuse("both vaults are in region %s: make one elsewhere", a.vault.Location)
	}
	for _, k := range pair {
		of := fmt.Sprintf("-VaultName %s -Name %s", k.Vault, k.Name)
		if k.vault.Subscription != "" && !strings.EqualFold(k.vault.Subscription, k.subscription) {
			refuse("vault %s is in subscription %s, not in %s", k.vault.Name, k.vault.Subscription, k.subscription)
		}
		if !k.vault.PurgeProtection {
			refuse("vault %s has no purge protection: Update-AzKeyVault -VaultName %s -EnablePurgeProtection", k.vault.Name, k.vault.Name)
		}
		if strings.TrimSuffix(k.Type, "-HSM") != "RSA" {
			refuse("key %s in vault %s is of type %s: only RSA keys wrap", k.Name, k.Vault, k.Type)
		}
		for _, op := range []string{"wrapKey", "unwrapKey"} {
			if !slices.Contains(k.Operations, op) {
				refuse("key %s in vault %s may not %s: Update-AzKeyVaultKey %s -KeyOps wrapKey,unwrapKey", k.Name, k.Vault, op, of)
			}
		}
		if !k.Enabled {
			refuse("key %s in vault %s is disabled: Update-AzKeyVaultKey %s -Enable $true", k.Name, k.Vault, of)
		}
		if k.Expires != nil && k.Expires.Before(never) {
			refuse("key %s in vault %s expires: Update-AzKeyVaultKey %s -Expires 12/31/9999", k.Name, k.Vault, of)
		}
		if strings.Contains(k.RecoveryLevel, "Purgeable") {
			refuse("key %s in vault %s has recovery level %s: it can be purged", k.Name, k.Vault, k.RecoveryLevel)
		}
		if !mayWrap(k.vault, service) {
			refuse("the service has not all of get, wrapKey and unwrapKey: Set-AzKeyVaultAccessPolicy -VaultName %s -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName %s", k.vault.Name, service)
		}
	}
	return failed
}

func mayWrap(v Vault, principal string) bool {
	for _, a := range v.Access {
		if strings.EqualFold(a.Principal, principal) {
			has := func(p string) bool { return slices.Contains(a.Keys, p) || slices.Contains(a.Keys, "all") }
			return has("get") && has("wrapKey") && has("unwrapKey")
		}
	}
	return false
}

func getOnboarding(_ context.Context, c *Call) error {
	found := false
	for _, o := range c.requests {
		organization, _ := o.Get("OrganizationId")
		id, _ := o.Get("RequestId")
		if !strings.EqualFold(display(organization), c.text("OrganizationId")) || c.has("RequestId") && !strings.EqualFold(display(id), c.text("RequestId")) {
			continue
		}
		found = true
		if err := c.emit(o); err != nil {
			return err
		}
	}
	if c.has("RequestId") && !found {
		return fail.New(api.NotFound, "no request %.50q was made in this shell", c.text("RequestId"))
	}
	return nil
}

package cmdlet

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
)

// scenarios are the onboarding scenarios, with the kind of policy of each.
var scenarios = []struct {
	name string
	kind api.PolicyKind
}{{"MDEP", api.MultiWorkloadPolicy}, {"EXO", api.MailboxPolicy}, {"SPO", api.SitePolicy}}

func onboardingCmdlets() []*Cmdlet {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	needed := func(name, help string) Param { return Param{Name: name, Type: String, Mandatory: true, Help: help} }
	organization := Param{Name: "OrganizationId", Aliases: []string{"Organization"}, Type: String, Mandatory: true, Help: "Name or id of the tenant, stored in the request."}
	emits := []string{"RequestId", "OrganizationId", "Scenario", "OnboardingMode", "ValidationResult", "FailedValidations", "CreatedDate"}
	return []*Cmdlet{
		{
			Name: "New-CustomerKeyOnboardingRequest", Run: newOnboarding, Emits: emits,
			Synopsis: "Checks two keys and their vaults for use in a policy: ValidationResult is Success, or FailedValidations says what to correct. keyroll needs no onboarding: a policy can be created at once.",
			Example:  "New-CustomerKeyOnboardingRequest -OrganizationId contoso -Scenario MDEP -Subscription1 11111111-1111-1111-1111-111111111111 -KeyIdentifier1 https://contoso-a.vault.azure.net/keys/Key001 -Subscription2 22222222-2222-2222-2222-222222222222 -KeyIdentifier2 https://contoso-b.vault.azure.net/keys/Key001 -OnboardingMode Validate",
			Params: []Param{organization,
				{Name: "Scenario", Type: String, Mandatory: true, Values: names, Help: "Kind of policy: multi-workload (MDEP), mailbox (EXO) or site (SPO)."},
				needed("Subscription1", "Subscription of the first vault, a GUID."),
				needed("KeyIdentifier1", "URI of the first key."),
				needed("Subscription2", "Subscription of the second vault."),
				needed("KeyIdentifier2", "URI of the second key."),
				{Name: "OnboardingMode", Type: String, Values: []string{"Validate", "Enable"}, Help: "Both only check the keys (default: Validate)."}},
		},
		{
			Name: "Get-CustomerKeyOnboardingRequest", Run: getOnboarding, Emits: emits,
			Synopsis: "Shows the requests that were made in this shell.",
			Example:  "Get-CustomerKeyOnboardingRequest -OrganizationId contoso",
			Params:   []Param{organization, {Name: "RequestId", Type: String, Help: "Show only this request."}},
		},
	}
}

var onboardingView = &View{List: true, Columns: []Column{{"RequestId", "RequestId"}, {"OrganizationId", "OrganizationId"}, {"Scenario", "Scenario"},
	{"OnboardingMode", "OnboardingMode"}, {"ValidationResult", "ValidationResult"}, {"FailedValidations", "FailedValidations"}, {"CreatedDate", "CreatedDate"}}}

func newOnboarding(ctx context.Context, c *Call) error {
	failed, err := c.validate(ctx)
	if err != nil {
		return err
	}
	result := "Success"
	if len(failed) > 0 {
		result = "Failure"
	}
	mode := c.text("OnboardingMode")
	if mode == "" {
		mode = "Validate"
	}
	now := c.Now()
	o := &Object{View: onboardingView, Properties: []Property{
		{"RequestId", uuid.NewString()}, {"OrganizationId", c.text("OrganizationId")}, {"Scenario", c.text("Scenario")}, {"OnboardingMode", mode},
		{"ValidationResult", result}, {"FailedValidations", list(failed)}, {"CreatedDate", optionalTime(&now)}}}
	c.requests = append(c.requests, o)
	return c.emit(o)
}

// validate returns why the two keys of a request cannot be used in a policy: the
// refusals of the service, and each vault that is not in the subscription that the
// request names for it.
func (c *Call) validate(ctx context.Context) (failed []string, err error) {
	var in api.CheckKeysInput
	in.Body.Keys = []string{c.text("KeyIdentifier1"), c.text("KeyIdentifier2")}
	for _, s := range scenarios {
		if s.name == c.text("Scenario") {
			in.Body.Kind = s.kind
		}
	}
	check, err := c.Service.CheckKeys(ctx, in)
	if err != nil {
		return nil, err
	}
	for _, r := range check.Refusals {
		if r.Hint != "" {
			r.Detail += ": " + r.Hint
		}
		failed = append(failed, r.Detail)
	}
	c.printWarnings(check.Warnings, "")
	for i, subscription := range []string{c.text("Subscription1"), c.text("Subscription2")} {
		name, err := vaultOf(in.Body.Keys[i])
		if err != nil {
			return nil, err
		}
		v, err := c.Vaults.ShowVault(ctx, name)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		// A vault that is not shown here was checked, or refused, by the service.
		if err == nil && v.Subscription != "" && !strings.EqualFold(v.Subscription, subscription) {
			failed = append(failed, fmt.Sprintf("vault %s is in subscription %s, not in %s", v.Name, v.Subscription, subscription))
		}
	}
	return failed, nil
}

// vaultOf reads the name of the vault from https://VAULT.DOMAIN/keys/KEY[/VERSION].
func vaultOf(identifier string) (string, error) {
	u, err := url.Parse(identifier)
	if err == nil && u.Scheme == "https" {
		if name, _, _ := strings.Cut(u.Hostname(), "."); name != "" {
			return name, nil
		}
	}
	return "", invalid("%.300q is not the identifier of a key", identifier).WithHint("write it as https://VAULT.vault.azure.net/keys/KEY")
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
		return fail.New(api.NotFound, "request %.50q was not made in this shell", c.text("RequestId"))
	}
	return nil
}

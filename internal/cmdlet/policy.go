package cmdlet

import (
	"context"
	"slices"
	"strings"

	"keyroll/api"
)

// policyIdentity names a policy.
var policyIdentity = Param{Name: "Identity", Type: String, Position: 1, Mandatory: true, Piped: true, PipedText: true,
	Help: "Name, DistinguishedName or GUID of a policy, or a DataEncryptionPolicyID."}

// Parameter sets of Set-DataEncryptionPolicy, as its documentation names them;
// settings is the set without the mandatory parameters of the others.
const (
	settings   = "Settings"
	refreshKey = "RefreshKey"
	replaceKey = "ReplaceKey"
	askPurge   = "TenantAdminPurgeKeyRequest"
	makePurge  = "DCAdminPurgeKeyRequest"
)

func policyCmdlets() []*Cmdlet {
	all := policyFamily(api.MailboxPolicy, "DataEncryptionPolicy", "mailbox", "USA_mailboxes")
	set := all[2]
	set.Sets = append(set.Sets, askPurge, makePurge)
	set.Params = append(set.Params,
		Param{Name: "PermanentDataPurgeRequested", Type: Switch, Mandatory: true, Sets: []string{askPurge},
			Help: "Request the purge of the policy and of all that it protects, after a confirmation. The purge waits for two registered approvers."},
		Param{Name: "PermanentDataPurgeReason", Type: String, Mandatory: true, Sets: []string{askPurge, makePurge}, Help: "Reason for the purge."},
		Param{Name: "PermanentDataPurgeContact", Type: String, Mandatory: true, Sets: []string{askPurge}, Help: "Person to contact about it."},
		Param{Name: "Force", Type: Switch, Sets: []string{askPurge, makePurge}, Help: "Accept that a vault of the policy has been deleted already."})
	return all
}

// policyFamily returns the New, Get and Set cmdlets for the policies of one kind.
func policyFamily(kind api.PolicyKind, noun, word, example string) []*Cmdlet {
	emits := policyObject(api.Policy{}).names()
	anyPolicy := optional(policyIdentity)
	anyPolicy.Null = true
	return []*Cmdlet{
		{
			Name: "New-" + noun, Run: newPolicy(kind), Emits: emits, Changes: true,
			Synopsis: "Creates a " + word + " policy from two customer keys in two vaults.",
			Example:  "New-" + noun + " -Name " + example + ` -Description "Root key for USA and its territories" -AzureKeyIDs https://contoso-vaulta1.vault.azure.net/keys/Key001, https://contoso-vaulta2.vault.azure.net/keys/Key001`,
			Params: []Param{
				{Name: "Name", Type: String, Position: 1, Mandatory: true, Help: "Name of the policy."},
				{Name: "AzureKeyIDs", Type: Strings, Mandatory: true, Help: "Two key URIs without a version, in two vaults."},
				{Name: "Description", Type: String, Help: "Description of the policy."},
				{Name: "Enabled", Type: Boolean, Help: "Whether the policy may be assigned (default: $true)."},
				domainController},
		},
		{
			Name: "Get-" + noun, Run: getPolicy(kind), Emits: emits,
			Synopsis: "Shows one policy, or all " + word + " policies. A name that does not exist is an error.",
			Example:  "Get-" + noun + " " + example,
			Params:   withGetParameters(anyPolicy),
		},
		{
			Name: "Set-" + noun, Run: setPolicy(kind), Changes: true,
			Synopsis: "Changes a " + word + " policy, adopts the newest versions of its customer keys, or replaces its keys.",
			Example:  "Set-" + noun + " " + example + " -Refresh",
			Sets:     []string{settings, refreshKey, replaceKey},
			Params: []Param{policyIdentity,
				{Name: "Refresh", Type: Switch, Mandatory: true, Sets: []string{refreshKey}, Help: "Adopt the newest versions of the policy's customer keys, and roll."},
				{Name: "Replace", Type: Switch, Mandatory: true, Sets: []string{replaceKey}, Help: "Replace the policy's keys by the two keys of -AzureKeyIDs, and roll."},
				{Name: "AzureKeyIDs", Type: Strings, Mandatory: true, Sets: []string{replaceKey}, Help: "Two key URIs without a version, in two vaults."},
				{Name: "Depth", Type: String, Values: depths, Sets: []string{refreshKey, replaceKey}, Help: depthHelp},
				{Name: "AllGenerations", Type: Switch, Sets: []string{refreshKey}, Help: "With -Depth Root, re-wrap the older policy keys too."},
				{Name: "Name", Type: String, Help: "New name."},
				{Name: "Description", Type: String, Help: "New description."},
				{Name: "Enabled", Type: Boolean, Help: "Whether the policy may be assigned. A policy that is assigned to the tenant cannot be disabled."},
				domainController},
		},
	}
}

// depths are the values of -Depth, and depthHelp explains them.
var depths = []string{"Root", "Policy", "Container", "Content"}

const depthHelp = "Policy (the default) makes a new policy key and moves what the policy protects under it. Root only re-wraps the policy key. Container also makes new container keys, Content also re-encrypts all content."

var policyView = &View{Columns: []Column{{"Name", "Name"}, {"State", "State"}, {"PercentComplete", "PercentComplete"}, {"DataEncryptionPolicyID", "DataEncryptionPolicyID"}}}

func policyObject(p api.Policy) *Object {
	var keys []string
	for _, k := range []api.KeyVersion{p.Primary, p.Secondary} {
		if k.URI != "" {
			keys = append(keys, strings.TrimSuffix(k.URI, "/"+k.Version))
		}
	}
	purge := p.State == api.PurgePending || p.State == api.PurgeDone
	return &Object{View: policyView, Properties: []Property{
		{"Identity", p.Name}, {"Name", p.Name}, {"Guid", p.ID}, {"DistinguishedName", policyDN(p.Name)}, {"Description", p.Description},
		{"Enabled", p.Enabled}, {"Assigned", p.Assigned}, {"AzureKeyIDs", list(keys)}, {"PrimaryKeyUri", keyURI(p.Primary)}, {"SecondaryKeyUri", keyURI(p.Secondary)},
		{"PrimaryKeyHealth", keyHealth(p.PrimaryHealth)}, {"SecondaryKeyHealth", keyHealth(p.SecondaryHealth)},
		{"DataEncryptionPolicyID", p.Revision}, {"State", string(p.State)}, {"PercentComplete", asInteger(p.PercentComplete)},
		{"PermanentDataPurgeRequested", purge}, {"WhenCreated", optionalTime(&p.Created)}, {"WhenRefreshed", optionalTime(&p.Refreshed)},
	}}
}

// keyURI returns the URI of a key version, or nil.
func keyURI(k api.KeyVersion) any {
	if k.URI == "" {
		return nil
	}
	return k.URI
}

// keyHealth returns the health of a customer key, or nil.
func keyHealth(h *api.KeyHealth) any {
	if h == nil {
		return nil
	}
	return h.String()
}

// under is the end of the distinguished names of all policies; keyroll has no
// directory service.
const under = ",CN=Data Encryption Policies,CN=keyroll"

// policyDN returns the distinguished name of a policy (RFC 4514), or nil without a name.
func policyDN(name string) any {
	if name == "" {
		return nil
	}
	return "CN=" + strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(name) + under
}

// policyName returns the name in a distinguished name, and any other identity
// unchanged.
func policyName(identity string) string {
	if len(identity) < 3+len(under) || !strings.EqualFold(identity[:3], "CN=") {
		return identity
	}
	name, rest := identity[3:len(identity)-len(under)], identity[len(identity)-len(under):]
	if !strings.EqualFold(rest, under) {
		return identity
	}
	return strings.NewReplacer(`\\`, `\`, `\,`, ",").Replace(name)
}

func newPolicy(kind api.PolicyKind) func(context.Context, *Call) error {
	return func(ctx context.Context, c *Call) error {
		var in api.CreatePolicyInput
		in.Body.Kind, in.Body.Name, in.Body.Description, in.Body.Keys = kind, c.text("Name"), c.text("Description"), c.texts("AzureKeyIDs")
		in.Body.DryRunOption = c.dryRun()
		return c.change(ctx, func() (*Object, error) {
			p, err := c.Service.CreatePolicy(ctx, in)
			if err == nil && c.optionalBool("Enabled") != nil && !c.flag("Enabled") && !in.Body.DryRun {
				off := api.SetPolicyInput{PolicyInput: api.PolicyInput{Policy: p.ID}}
				off.Body.Enabled = c.optionalBool("Enabled")
				p, err = c.Service.SetPolicy(ctx, off)
			}
			if err != nil {
				return nil, err
			}
			c.printWarnings(p.Warnings, "")
			return policyObject(p), nil
		}, "Create %s policy %s", kind, in.Body.Name)
	}
}

// printPending says that an act waits for an approver, if it does.
func (c *Call) printPending(p api.Pending) {
	if notice := p.Notice(); notice != "" {
		c.warn("%s", notice)
	}
}

// printWarnings prints the warnings of a check, and the limit of a result unless it is empty.
func (c *Call) printWarnings(all []string, limit string) {
	for _, w := range all {
		c.warn("%s", w)
	}
	if limit != "" {
		c.warn("%s", limit)
	}
}

func getPolicy(kind api.PolicyKind) func(context.Context, *Call) error {
	return func(ctx context.Context, c *Call) error {
		// The policy may be of any kind, because a DataEncryptionPolicyID may be of any policy.
		if identity := c.text("Identity"); identity != "" {
			p, err := c.Service.ShowPolicy(ctx, api.PolicyInput{Policy: policyName(identity)})
			if err != nil {
				return err
			}
			return c.emit(policyObject(p))
		}
		all, err := c.policies(ctx, kind)
		if err != nil {
			return err
		}
		return emitAll(c, all, policyObject)
	}
}

// policies lists the policies of one kind.
func (c *Call) policies(ctx context.Context, kind api.PolicyKind) ([]api.Policy, error) {
	list, err := c.Service.ListPolicies(ctx, api.ListInput{})
	var fit []api.Policy
	for _, p := range list.Items {
		if p.Kind == kind {
			fit = append(fit, p)
		}
	}
	return fit, err
}

func setPolicy(kind api.PolicyKind) func(context.Context, *Call) error {
	return func(ctx context.Context, c *Call) error {
		if c.flag("AllGenerations") && c.text("Depth") != "Root" {
			return invalid("-AllGenerations can be used only with -Depth Root")
		}
		if c.has("PermanentDataPurgeReason") && !c.flag("PermanentDataPurgeRequested") {
			return invalid("this is not supported: keyroll carries a purge out once two registered approvers have approved it").
				WithHint("-PermanentDataPurgeRequested requests it; keyroll purge approve approves it")
		}
		changes := slices.ContainsFunc([]string{"Name", "Description", "Enabled"}, c.has)
		if !changes && !c.flag("Refresh") && !c.flag("Replace") && !c.flag("PermanentDataPurgeRequested") {
			return invalid("no change is given").WithHint("give at least one of -Refresh, -Replace, -Name, -Description, -Enabled")
		}
		of, ask := api.PolicyInput{Policy: policyName(c.text("Identity")), Kind: kind}, c.flag("PermanentDataPurgeRequested")
		name := of.Policy
		if c.flag("WhatIf") || c.asks(ask) { // the description has the name, whatever -Identity is
			p, err := c.Service.ShowPolicy(ctx, of)
			if err != nil {
				return err
			}
			of.Policy, name = p.ID, p.Name
		}
		what, act := c.policyAct(name)
		return c.changeIf(ctx, ask, func() (*Object, error) {
			of := of
			if changes {
				in := api.SetPolicyInput{PolicyInput: of}
				in.Body.Name, in.Body.Description, in.Body.Enabled = c.optionalText("Name"), c.optionalText("Description"), c.optionalBool("Enabled")
				in.Body.DryRunOption = c.dryRun()
				p, err := c.Service.SetPolicy(ctx, in)
				if err != nil {
					return nil, err
				}
				of.Policy = p.ID // the name may have changed
			}
			return nil, act(ctx, of)
		}, "%s", what)
	}
}

func (c *Call) optionalText(name string) *string {
	if s, ok := c.args[name].(string); ok {
		return &s
	}
	return nil
}

// policyAct returns what a Set cmdlet does in addition to changing the settings: a
// description and a function.
func (c *Call) policyAct(name string) (what string, act func(context.Context, api.PolicyInput) error) {
	depth := api.Depth(strings.ToLower(c.text("Depth")))
	switch {
	case c.flag("Refresh"):
		return "Refresh policy " + name, func(ctx context.Context, of api.PolicyInput) error {
			in := api.RefreshPolicyInput{PolicyInput: of}
			in.Body.Depth, in.Body.AllGenerations, in.Body.DryRunOption = depth, c.flag("AllGenerations"), c.dryRun()
			done, err := c.Service.RefreshPolicy(ctx, in)
			c.printWarnings(done.Warnings, done.Limit)
			return err
		}
	case c.flag("Replace"):
		return "Replace the keys of policy " + name + " by " + strings.Join(c.texts("AzureKeyIDs"), ", "), func(ctx context.Context, of api.PolicyInput) error {
			in := api.ReplacePolicyKeysInput{PolicyInput: of}
			in.Body.Depth, in.Body.Keys, in.Body.DryRunOption = depth, c.texts("AzureKeyIDs"), c.dryRun()
			done, err := c.Service.ReplacePolicyKeys(ctx, in)
			c.printWarnings(done.Warnings, done.Limit)
			return err
		}
	case c.flag("PermanentDataPurgeRequested"):
		return "Request the purge of policy " + name + " and of all that it protects, irreversibly", func(ctx context.Context, of api.PolicyInput) error {
			in := api.RequestPurgeInput{PolicyInput: of}
			in.Body.Reason, in.Body.Contact, in.Body.Force = c.text("PermanentDataPurgeReason"), c.text("PermanentDataPurgeContact"), c.flag("Force")
			in.Body.DryRunOption = c.dryRun()
			purge, err := c.Service.RequestPurge(ctx, in)
			if err == nil && !in.Body.DryRun {
				c.warn("the purge of policy %s waits for two approvers: keyroll purge status %s shows them", purge.Policy, purge.Policy)
				c.printWarnings(purge.Warnings, purge.Limit)
			}
			return err
		}
	}
	return "Change policy " + name, func(context.Context, api.PolicyInput) error { return nil }
}

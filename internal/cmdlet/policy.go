package cmdlet

import (
	"context"
	"strings"

	"keyroll/api"
)

// policyIdentity names a mailbox policy.
var policyIdentity = Param{Name: "Identity", Type: String, Position: 1, Mandatory: true, Piped: true, PipedText: true,
	Help: "Name or GUID of a policy, or a DataEncryptionPolicyID."}

func policyCmdlets() []*Cmdlet {
	emits := policyObject(api.Policy{}).names()
	anyPolicy := optional(policyIdentity)
	anyPolicy.Null = true
	return []*Cmdlet{
		{
			Name: "New-DataEncryptionPolicy", Run: newPolicy, Emits: emits,
			Synopsis: "Makes a mailbox policy from two customer keys in two vaults.",
			Example:  `New-DataEncryptionPolicy -Name USA_mailboxes -Description "Root key for mailboxes in USA" -AzureKeyIDs https://contoso-vaulta1.vault.azure.net/keys/Key001, https://contoso-vaulta2.vault.azure.net/keys/Key001`,
			Params: []Param{
				{Name: "Name", Type: String, Position: 1, Mandatory: true, Help: "Name of the policy."},
				{Name: "AzureKeyIDs", Type: Strings, Mandatory: true, Help: "Two key URIs without a version, in two vaults."},
				{Name: "Description", Type: String, Help: "What the policy is for."},
				{Name: "Enabled", Type: Boolean, Help: "A new policy is always enabled; $true is taken."},
				confirmParam},
		},
		{
			Name: "Get-DataEncryptionPolicy", Run: getPolicy, Emits: emits,
			Synopsis: "Shows one policy, or all mailbox policies.",
			Example:  "Get-DataEncryptionPolicy USA_mailboxes",
			Params:   []Param{anyPolicy},
		},
		{
			Name: "Set-DataEncryptionPolicy", Run: setPolicy,
			Synopsis: "Takes up the newest versions of a policy's customer keys and rolls its mailboxes.",
			Example:  "Set-DataEncryptionPolicy USA_mailboxes -Refresh",
			Params: []Param{policyIdentity,
				{Name: "Refresh", Type: Switch, Mandatory: true, Help: "Refreshes the policy."},
				{Name: "Depth", Type: String, Values: []string{"Root", "Policy"}, Help: "Policy, the default, makes a new policy key and brings the mailboxes over. Root re-wraps the policy key only."},
				{Name: "AllGenerations", Type: Switch, Help: "With -Depth Root: re-wraps the older policy keys too."},
				confirmParam},
		},
	}
}

var policyView = &View{Columns: []Column{{"Name", "Name"}, {"State", "State"}, {"PercentComplete", "PercentComplete"}, {"DataEncryptionPolicyID", "DataEncryptionPolicyID"}}}

func policyObject(p api.Policy) *Object {
	var keys []string
	for _, k := range []api.KeyVersion{p.Primary, p.Secondary} {
		if k.URI != "" {
			keys = append(keys, strings.TrimSuffix(k.URI, "/"+k.Version))
		}
	}
	return &Object{View: policyView, Properties: []Property{
		{"Identity", p.Name}, {"Name", p.Name}, {"Guid", p.ID}, {"Description", p.Description}, {"Enabled", p.Enabled},
		{"AzureKeyIDs", list(keys)}, {"PrimaryKeyUri", keyURI(p.Primary)}, {"SecondaryKeyUri", keyURI(p.Secondary)},
		{"DataEncryptionPolicyID", p.Revision}, {"State", string(p.State)}, {"PercentComplete", whole(p.PercentComplete)},
		{"WhenCreated", moment(&p.Created)}, {"WhenRefreshed", moment(&p.Refreshed)},
	}}
}

// keyURI is the identifier of a key version, nil where there is none.
func keyURI(k api.KeyVersion) any {
	if k.URI == "" {
		return nil
	}
	return k.URI
}

func newPolicy(ctx context.Context, c *Call) error {
	if enabled := c.setting("Enabled"); enabled != nil && !*enabled {
		return invalid("a new policy is enabled").WithHint("leave -Enabled out; a policy protects nothing before it is assigned")
	}
	var in api.CreatePolicyInput
	in.Body.Name, in.Body.Description, in.Body.Keys = c.text("Name"), c.text("Description"), c.texts("AzureKeyIDs")
	if err := c.confirm(ctx, "Make policy %s?", in.Body.Name); err != nil {
		return err
	}
	p, err := c.Service.CreatePolicy(ctx, in)
	if err != nil {
		return err
	}
	return c.emit(policyObject(p))
}

func getPolicy(ctx context.Context, c *Call) error {
	if identity := c.text("Identity"); identity != "" {
		p, err := c.Service.ShowPolicy(ctx, api.PolicyInput{Policy: identity})
		if err != nil {
			return err
		}
		return c.emit(policyObject(p))
	}
	all, err := c.policies(ctx, api.MailboxPolicy)
	if err != nil {
		return err
	}
	return emitAll(c, all, policyObject)
}

// policies lists the policies of one kind.
func (c *Call) policies(ctx context.Context, kind api.PolicyKind) ([]api.Policy, error) {
	list, err := c.Service.ListPolicies(ctx, api.None{})
	var fit []api.Policy
	for _, p := range list.Items {
		if p.Kind == kind {
			fit = append(fit, p)
		}
	}
	return fit, err
}

func setPolicy(ctx context.Context, c *Call) error {
	if !c.flag("Refresh") {
		return invalid("has nothing to change").WithHint("give -Refresh")
	}
	in := api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: c.text("Identity")}}
	in.Body.Depth = api.Depth(strings.ToLower(c.text("Depth")))
	in.Body.AllGenerations = c.flag("AllGenerations")
	if in.Body.AllGenerations && in.Body.Depth != api.DepthRoot {
		return invalid("-AllGenerations goes with -Depth Root only")
	}
	if err := c.confirm(ctx, "Refresh policy %s?", c.text("Identity")); err != nil {
		return err
	}
	done, err := c.Service.RefreshPolicy(ctx, in)
	if err == nil && done.Limit != "" {
		c.warn("%s", done.Limit)
	}
	return err
}

package cmdlet

import (
	"context"

	"keyroll/api"
	"keyroll/internal/fail"
)

// recipientCmdlets are the cmdlets for mail users, groups and recipients, all of
// which are mailboxes here.
func recipientCmdlets() []*Cmdlet {
	emits := recipientObject(api.Mailbox{}).names()
	policy := optional(ownPolicy)
	policy.Null = false
	return []*Cmdlet{
		{
			Name: "New-MailUser", Run: newMailUser, Emits: emits, Changes: true,
			Synopsis: "Creates a mail user: a mailbox whose mail is elsewhere until it is migrated. An import migrates it.",
			Example:  "New-MailUser -Name bob@contoso.com -ExternalEmailAddress bob@mail.contoso.local",
			Params: []Param{{Name: "Name", Type: String, Position: 1, Mandatory: true, Help: "Name of the future mailbox."},
				{Name: "ExternalEmailAddress", Type: String, Mandatory: true, Help: "Address of its mail until it is migrated."}},
		},
		{
			Name: "Get-MailUser", Run: getOfType(api.MailUser), Emits: emits,
			Synopsis: "Shows one mail user, or all.",
			Example:  "Get-MailUser bob@contoso.com",
			Params:   []Param{optional(mailboxIdentity), resultSize},
		},
		{
			Name: "Set-MailUser", Run: setMailbox, Changes: true,
			Synopsis: "Assigns a policy before a mailbox is migrated, so that its mail is encrypted under the policy from the first byte. Works on mailboxes too.",
			Example:  "Set-MailUser -Identity bob@contoso.com -DataEncryptionPolicy USA_mailboxes",
			Params:   []Param{mailboxIdentity, ownPolicy, domainController},
		},
		{
			Name: "New-UnifiedGroup", Run: newGroup, Emits: emits, Changes: true,
			Synopsis: "Creates the mailbox of a group.",
			Example:  "New-UnifiedGroup -DisplayName finance@contoso.com -DataEncryptionPolicy USA_mailboxes",
			Params: []Param{{Name: "DisplayName", Aliases: []string{"Name"}, Type: String, Position: 1, Mandatory: true, Help: "Name of the group."},
				policy},
		},
		{
			Name: "Get-UnifiedGroup", Run: getOfType(api.GroupMailbox), Emits: emits,
			Synopsis: "Shows one group, or all.",
			Example:  "Get-UnifiedGroup finance@contoso.com",
			Params:   []Param{optional(mailboxIdentity), resultSize},
		},
		{
			Name: "Set-UnifiedGroup", Run: setGroup, Changes: true,
			Synopsis: "Assigns a policy to the mailbox of a group; $null removes the assignment.",
			Example:  "Set-UnifiedGroup -Identity finance@contoso.com -DataEncryptionPolicy USA_mailboxes",
			Params:   []Param{mailboxIdentity, ownPolicy},
		},
		{
			Name: "Set-User", Run: clearPolicy, Changes: true,
			Synopsis: "Removes the policy assignment of a user's mailbox, which returns it to the multi-workload or service-managed policy.",
			Example:  "Set-User -Identity alice@contoso.com -ClearDataEncryptionPolicy",
			Params: []Param{mailboxIdentity,
				{Name: "ClearDataEncryptionPolicy", Type: Switch, Mandatory: true, Help: "Remove the assignment."}, domainController},
		},
		{
			Name: "Get-Recipient", Run: getRecipient, Emits: emits,
			Synopsis: "Shows mailboxes, groups and mail users. A filter compares DataEncryptionPolicy with the DistinguishedName of a policy.",
			Example:  `Get-Recipient -Filter "DataEncryptionPolicy -eq 'CN=USA_mailboxes` + under + `'"`,
			Params: []Param{optional(mailboxIdentity),
				{Name: "Filter", Type: String, Help: "Condition on the properties, such as 'RecipientTypeDetails -eq \"MailUser\" -and DataEncryptionPolicy -ne $null'."},
				{Name: "RecipientTypeDetails", Type: Strings, Help: "Show only these types.", Values: []string{
					string(api.UserMailbox), string(api.SharedMailbox), string(api.PublicFolder), string(api.GroupMailbox), string(api.MailUser)}},
				resultSize},
		},
		{
			Name: "New-MoveRequest", Run: moveRequest, Emits: moveObject(api.Mailbox{}).names(),
			Synopsis: "Does nothing: a mailbox is encrypted from its first byte, and its key is re-wrapped when a policy is assigned.",
			Example:  "New-MoveRequest alice@contoso.com",
			Params:   []Param{mailboxIdentity},
		},
	}
}

var recipientView = &View{Columns: []Column{{"Name", "Name"}, {"RecipientTypeDetails", "RecipientTypeDetails"}, {"DataEncryptionPolicy", "DataEncryptionPolicy"}}}

func recipientObject(m api.Mailbox) *Object {
	var external any
	if m.ExternalAddress != "" {
		external = m.ExternalAddress
	}
	return &Object{View: recipientView, Properties: []Property{
		{"Identity", m.Name}, {"Name", m.Name}, {"DisplayName", m.Name}, {"RecipientTypeDetails", string(m.Type)}, {"ExternalEmailAddress", external},
		{"DataEncryptionPolicy", policyDN(m.AssignedPolicy)}, {"WhenCreated", optionalTime(&m.Created)},
	}}
}

func newMailUser(ctx context.Context, c *Call) error {
	var in api.CreateMailboxInput
	in.Body.Name, in.Body.Type, in.Body.ExternalAddress = c.text("Name"), api.MailUser, c.text("ExternalEmailAddress")
	return c.createMailbox(ctx, in, recipientObject)
}

func newGroup(ctx context.Context, c *Call) error {
	var in api.CreateMailboxInput
	in.Body.Name, in.Body.Type, in.Body.Policy = c.text("DisplayName"), api.GroupMailbox, policyName(c.text("DataEncryptionPolicy"))
	return c.createMailbox(ctx, in, recipientObject)
}

// ofType returns the mailbox that -Identity names, which must be of the type.
func (c *Call) ofType(ctx context.Context, t api.RecipientType) (api.Mailbox, error) {
	m, err := c.Service.ShowMailbox(ctx, api.MailboxInput{Mailbox: c.text("Identity")})
	if err == nil && m.Type != t {
		err = fail.New(api.NotFound, "no %s is named %q: that is a %s", t, m.Name, m.Type).WithHint("Get-Recipient shows recipients of all types")
	}
	return m, err
}

func getOfType(t api.RecipientType) func(context.Context, *Call) error {
	return func(ctx context.Context, c *Call) error {
		if c.has("Identity") {
			m, err := c.ofType(ctx, t)
			if err != nil {
				return err
			}
			return c.emit(recipientObject(m))
		}
		return c.everyMailbox(ctx, func(m api.Mailbox) (*Object, error) {
			if m.Type != t {
				return nil, nil
			}
			return recipientObject(m), nil
		})
	}
}

func setGroup(ctx context.Context, c *Call) error {
	if _, err := c.ofType(ctx, api.GroupMailbox); err != nil {
		return err
	}
	return setMailbox(ctx, c)
}

func clearPolicy(ctx context.Context, c *Call) error {
	if !c.flag("ClearDataEncryptionPolicy") {
		return invalid("no change is given").WithHint("give -ClearDataEncryptionPolicy")
	}
	return c.assign(ctx, c.text("Identity"), "")
}

func getRecipient(ctx context.Context, c *Call) error {
	fits, err := c.filter(c.text("Filter"), recipientObject(api.Mailbox{}).names())
	if err != nil {
		return err
	}
	types := c.texts("RecipientTypeDetails")
	show := func(m api.Mailbox) (*Object, error) {
		o := recipientObject(m)
		if ok, err := containsValue(string(m.Type), list(types)); err != nil || types != nil && !ok {
			return nil, err
		}
		if ok, err := fits(ctx, o); err != nil || !ok {
			return nil, err
		}
		return o, nil
	}
	if !c.has("Identity") {
		return c.everyMailbox(ctx, show)
	}
	m, err := c.Service.ShowMailbox(ctx, api.MailboxInput{Mailbox: c.text("Identity")})
	if err != nil {
		return err
	}
	o, err := show(m)
	if err != nil || o == nil {
		return err
	}
	return c.emit(o)
}

func moveObject(m api.Mailbox) *Object {
	return &Object{Properties: []Property{{"DisplayName", m.Name}, {"Status", "Completed"}, {"TotalMailboxSize", ByteSize(m.Bytes)}, {"PercentComplete", int64(100)}}}
}

func moveRequest(ctx context.Context, c *Call) error {
	m, err := c.Service.ShowMailbox(ctx, api.MailboxInput{Mailbox: c.text("Identity")})
	if err != nil {
		return err
	}
	c.warn("nothing is moved: mailbox %s is encrypted, and its key is re-wrapped when a policy is assigned", m.Name)
	return c.emit(moveObject(m))
}

package cmdlet

import (
	"context"
	"strconv"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

var mailboxIdentity = Param{Name: "Identity", Type: String, Position: 1, Mandatory: true, Piped: true, PipedText: true,
	Help: "Name of a mailbox, such as alice@contoso.com."}

func invalid(format string, args ...any) *fail.Error {
	return fail.New(api.InvalidArgument, format, args...)
}

// ownPolicy names the policy to assign to a mailbox.
var ownPolicy = Param{Name: "DataEncryptionPolicy", Type: String, Mandatory: true, Null: true,
	Help: "Name, DistinguishedName or GUID of a mailbox policy; $null removes the assignment."}

func mailboxCmdlets() []*Cmdlet {
	return []*Cmdlet{
		{
			Name: "New-Mailbox", Run: newMailbox, Emits: mailboxObject(api.Mailbox{}).names(), Changes: true,
			Synopsis: "Creates a mailbox.",
			Example:  "New-Mailbox -Name alice@contoso.com",
			Sets:     []string{"User", "Shared", "PublicFolder"},
			Params: []Param{{Name: "Name", Type: String, Position: 1, Mandatory: true, PipedText: true, Help: "Name of the mailbox."},
				{Name: "Shared", Type: Switch, Sets: []string{"Shared"}, Help: "Create a shared mailbox."},
				{Name: "PublicFolder", Type: Switch, Sets: []string{"PublicFolder"}, Help: "Create a mailbox of public folders."}},
		},
		{
			Name: "Get-Mailbox", Run: getMailbox, Emits: mailboxObject(api.Mailbox{}).names(),
			Synopsis: "Shows one mailbox, or all. Get-MailUser lists the users whose mailbox is not migrated yet.",
			Example:  "Get-Mailbox -ResultSize Unlimited | Get-MailboxStatistics | ft DisplayName, DataEncryptionPolicyID",
			Params:   []Param{optional(mailboxIdentity), resultSize},
		},
		{
			Name: "Set-Mailbox", Run: setMailbox, Changes: true,
			Synopsis: "Assigns a policy to a mailbox; $null returns the mailbox to the multi-workload or service-managed policy. The key of an active mailbox is re-wrapped at once.",
			Example:  "Set-Mailbox -Identity alice@contoso.com -DataEncryptionPolicy USA_mailboxes",
			Params:   []Param{mailboxIdentity, ownPolicy, domainController},
		},
		{
			Name: "Get-MailboxStatistics", Run: mailboxStatistics, Emits: statisticsObject(api.Mailbox{}).names(),
			Synopsis: "Shows the size of a mailbox and what it is encrypted with. DataEncryptionPolicyID changes once the mailbox has a refreshed key.",
			Example:  "Get-MailboxStatistics -Identity alice@contoso.com | fl DataEncryptionPolicyID, IsEncrypted",
			Params:   []Param{mailboxIdentity},
		},
	}
}

var (
	mailboxView    = &View{Columns: []Column{{"Name", "Name"}, {"State", "State"}, {"DataEncryptionPolicy", "DataEncryptionPolicy"}}}
	statisticsView = &View{Columns: []Column{{"DisplayName", "DisplayName"}, {"ItemCount", "ItemCount"}, {"TotalItemSize", "TotalItemSize"},
		{"IsEncrypted", "IsEncrypted"}, {"DataEncryptionPolicyID", "DataEncryptionPolicyID"}}}
)

func mailboxObject(m api.Mailbox) *Object {
	var assigned any
	if m.AssignedPolicy != "" {
		assigned = m.AssignedPolicy
	}
	return &Object{View: mailboxView, Properties: []Property{
		{"Identity", m.Name}, {"Name", m.Name}, {"RecipientTypeDetails", string(m.Type)}, {"State", string(m.State)},
		{"DataEncryptionPolicy", assigned}, {"WhenCreated", optionalTime(&m.Created)},
	}}
}

func statisticsObject(m api.Mailbox) *Object {
	return &Object{View: statisticsView, Properties: []Property{
		{"Identity", m.Name}, {"DisplayName", m.Name}, {"ItemCount", m.Items}, {"TotalItemSize", ByteSize(m.Bytes)}, {"State", string(m.State)},
		{"IsEncrypted", m.Protection.IsEncrypted}, {"DataEncryptionPolicyID", m.Protection.DataEncryptionPolicyID},
		{"DataEncryptionPolicy", m.Protection.Policy},
	}}
}

func newMailbox(ctx context.Context, c *Call) error {
	var in api.CreateMailboxInput
	in.Body.Name, in.Body.Type = c.text("Name"), api.UserMailbox
	if c.flag("Shared") {
		in.Body.Type = api.SharedMailbox
	}
	if c.flag("PublicFolder") {
		in.Body.Type = api.PublicFolder
	}
	return c.createMailbox(ctx, in, mailboxObject)
}

func (c *Call) createMailbox(ctx context.Context, in api.CreateMailboxInput, show func(api.Mailbox) *Object) error {
	in.Body.DryRunOption = c.dryRun()
	return c.change(ctx, func() (*Object, error) {
		m, err := c.Service.CreateMailbox(ctx, in)
		return show(m), err
	}, "Create %s %s", in.Body.Type, in.Body.Name)
}

func getMailbox(ctx context.Context, c *Call) error {
	if c.has("Identity") {
		m, err := c.Service.ShowMailbox(ctx, api.MailboxInput{Mailbox: c.text("Identity")})
		if err != nil {
			return err
		}
		return c.emit(mailboxObject(m))
	}
	return c.everyMailbox(ctx, func(m api.Mailbox) (*Object, error) {
		if m.Type == api.MailUser {
			return nil, nil
		}
		return mailboxObject(m), nil
	})
}

var resultSize = Param{Name: "ResultSize", Type: String, Help: "Maximum number to show, or Unlimited (default: Unlimited)."}

// everyMailbox emits what show returns for each mailbox, at most -ResultSize objects;
// nil is left out.
func (c *Call) everyMailbox(ctx context.Context, show func(api.Mailbox) (*Object, error)) error {
	most := int64(-1)
	if size := c.text("ResultSize"); size != "" && !strings.EqualFold(size, "Unlimited") {
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil || n < 0 {
			return invalid("-ResultSize must be a number or Unlimited, found %.100q", size)
		}
		most = n
	}
	return everyPage(func(page api.PageInput) (api.List[api.Mailbox], error) {
		return c.Service.ListMailboxes(ctx, api.ListInput{PageInput: page})
	}, most, func(m api.Mailbox) (bool, error) {
		o, err := show(m)
		if err != nil || o == nil {
			return false, err
		}
		return true, c.emit(o)
	})
}

// everyPage reads a list page by page and calls f for each item, until f has accepted
// most items. A negative most means no limit.
func everyPage[T any](read func(api.PageInput) (api.List[T], error), most int64, f func(T) (accepted bool, err error)) error {
	page := api.PageInput{Limit: 1000}
	for most != 0 {
		part, err := read(page)
		if err != nil {
			return err
		}
		for _, item := range part.Items {
			if most == 0 {
				return nil
			}
			accepted, err := f(item)
			if err != nil {
				return err
			}
			if accepted {
				most--
			}
		}
		if part.Next == "" {
			return nil
		}
		page.After = part.Next
	}
	return nil
}

func setMailbox(ctx context.Context, c *Call) error {
	return c.assign(ctx, c.text("Identity"), policyName(c.text("DataEncryptionPolicy")))
}

// assign assigns a policy to a mailbox; an empty name removes the assignment.
func (c *Call) assign(ctx context.Context, mailbox, policy string) error {
	to := "policy " + policy
	if policy == "" {
		to = "no policy"
	}
	in := api.AssignMailboxInput{MailboxInput: api.MailboxInput{Mailbox: mailbox}}
	in.Body.Policy, in.Body.DryRunOption = policy, c.dryRun()
	return c.change(ctx, func() (*Object, error) {
		m, err := c.Service.AssignMailbox(ctx, in)
		c.printPending(m.Pending)
		return nil, err
	}, "Assign %s to mailbox %s", to, mailbox)
}

func mailboxStatistics(ctx context.Context, c *Call) error {
	m, err := c.Service.ShowMailbox(ctx, api.MailboxInput{Mailbox: c.text("Identity")})
	if err != nil {
		return err
	}
	return c.emit(statisticsObject(m))
}

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

// ownPolicy is the policy that a mailbox is to have of its own.
var ownPolicy = Param{Name: "DataEncryptionPolicy", Type: String, Mandatory: true, Null: true,
	Help: "Name, DistinguishedName or GUID of a mailbox policy; $null takes the mailbox back to what protects it without one."}

func mailboxCmdlets() []*Cmdlet {
	return []*Cmdlet{
		{
			Name: "New-Mailbox", Run: newMailbox, Emits: mailboxObject(api.Mailbox{}).names(), Changes: true,
			Synopsis: "Makes a mailbox.",
			Example:  "New-Mailbox -Name alice@contoso.com",
			Sets:     []string{"User", "Shared", "PublicFolder"},
			Params: []Param{{Name: "Name", Type: String, Position: 1, Mandatory: true, PipedText: true, Help: "Name of the mailbox."},
				{Name: "Shared", Type: Switch, Sets: []string{"Shared"}, Help: "A mailbox that several people use."},
				{Name: "PublicFolder", Type: Switch, Sets: []string{"PublicFolder"}, Help: "A mailbox of public folders."}},
		},
		{
			Name: "Get-Mailbox", Run: getMailbox, Emits: mailboxObject(api.Mailbox{}).names(),
			Synopsis: "Shows one mailbox, or all. Get-MailUser lists who has none here yet.",
			Example:  "Get-Mailbox -ResultSize Unlimited | Get-MailboxStatistics | ft DisplayName, DataEncryptionPolicyID",
			Params:   []Param{optional(mailboxIdentity), resultSize},
		},
		{
			Name: "Set-Mailbox", Run: setMailbox, Changes: true,
			Synopsis: "Assigns a policy to a mailbox; $null takes the mailbox back to the service-managed one. An active mailbox's key moves at once.",
			Example:  "Set-Mailbox -Identity alice@contoso.com -DataEncryptionPolicy USA_mailboxes",
			Params:   []Param{mailboxIdentity, ownPolicy, domainController},
		},
		{
			Name: "Get-MailboxStatistics", Run: mailboxStatistics, Emits: statisticsObject(api.Mailbox{}).names(),
			Synopsis: "Shows what a mailbox holds and what it is encrypted with. DataEncryptionPolicyID changes once the mailbox has a refreshed key.",
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
		{"DataEncryptionPolicy", assigned}, {"WhenCreated", moment(&m.Created)},
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
	}, "Make %s %s", in.Body.Type, in.Body.Name)
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

var resultSize = Param{Name: "ResultSize", Type: String, Help: "At most so many; Unlimited, the default, shows all."}

// everyMailbox emits what show makes of each mailbox, at most -ResultSize; nil
// is left out.
func (c *Call) everyMailbox(ctx context.Context, show func(api.Mailbox) (*Object, error)) error {
	most := int64(-1)
	if size := c.text("ResultSize"); size != "" && !strings.EqualFold(size, "Unlimited") {
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil || n < 0 {
			return invalid("-ResultSize takes a number or Unlimited, found %.100q", size)
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

// everyPage asks for a list part by part and gives each item to f, until f has
// taken so many, unless most is negative.
func everyPage[T any](ask func(api.PageInput) (api.List[T], error), most int64, f func(T) (took bool, err error)) error {
	page := api.PageInput{Limit: 1000}
	for most != 0 {
		part, err := ask(page)
		if err != nil {
			return err
		}
		for _, item := range part.Items {
			if most == 0 {
				return nil
			}
			took, err := f(item)
			if err != nil {
				return err
			}
			if took {
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

// assign gives a mailbox a policy of its own; an empty name takes it back.
func (c *Call) assign(ctx context.Context, mailbox, policy string) error {
	to := "policy " + policy
	if policy == "" {
		to = "no policy of its own"
	}
	in := api.AssignMailboxInput{MailboxInput: api.MailboxInput{Mailbox: mailbox}}
	in.Body.Policy, in.Body.DryRunOption = policy, c.dryRun()
	return c.change(ctx, func() (*Object, error) {
		_, err := c.Service.AssignMailbox(ctx, in)
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

// Package demo runs the documented procedure on real mail and real files and proves
// at its end that nothing was changed or lost.
//
// It uses only public interfaces: cmdlet lines, which it prints before it runs them,
// and the client. It compares content by SHA-256 with what was stored, and goes on
// reading while keys are rolled. Start reading at Run.
package demo

import (
	"context"
	"fmt"
	"io"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
)

// Bar shows progress.
type Bar interface {
	Set(done int64)
	End()
}

// Options configures the demo.
type Options struct {
	Client *client.Client
	// Script runs cmdlet lines and prints their output.
	Script func(ctx context.Context, text string) error
	// Fill makes n empty mailboxes under a policy, so that a roll has more to do than
	// only the mailboxes with mail.
	Fill func(ctx context.Context, policy string, n int) error
	// Watch follows a roll to its end with a progress bar.
	Watch    func(ctx context.Context, id string) (api.Roll, error)
	Progress func(title string, total int64) Bar
	Domain   string // vault domain
	Mail     Mail
	Files    Files
	Out      io.Writer
}

// emptyMailboxes is how many empty mailboxes are made in addition to those with mail.
const emptyMailboxes = 2000

const (
	policyName = "USA_mailboxes"
	exchange   = "00000002-0000-0ff1-ce00-000000000000"
	sharePoint = "00000003-0000-0ff1-ce00-000000000000"
	site       = "https://contoso.sharepoint.com/sites/source"
	adminSite  = "https://contoso-admin.sharepoint.com"
	inactive   = "carol@contoso.com"
)

// users are the mailboxes among which the mail is divided.
var users = []string{"alice@contoso.com", "bob@contoso.com", inactive}

type demo struct {
	Options
	mail   map[string]digest // by mailbox
	files  map[string]digest // by path
	broken []string          // what differs
	rolls  []api.Roll
	reads  reader
}

// Run runs the demo. It fails if any content that is read back differs from what was
// stored.
func Run(ctx context.Context, o Options) error {
	d := &demo{Options: o, mail: map[string]digest{}, files: map[string]digest{}}
	begin := time.Now()
	for _, step := range []struct {
		title string
		act   func(context.Context) error
	}{
		{"Two customer keys in two vaults, and a policy for mailboxes", d.mailboxPolicy},
		{"Mail", d.importMail},
		{"The roll of the mailbox policy: a new key version in each vault, then a refresh", d.rollMailboxes},
		{"Two more customer keys, and a policy for sites", d.sitePolicy},
		{"The roll of the site policy: one named key version at a time", d.rollSites},
		{"Proof", d.prove},
	} {
		fmt.Fprintf(o.Out, "\n== %s ==\n", step.title)
		if err := step.act(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
	}
	fmt.Fprintf(o.Out, "\nall done in %s\n", time.Since(begin).Round(time.Millisecond))
	if len(d.broken) > 0 {
		return fail.New(api.Damaged, "%d checks failed: %s", len(d.broken), d.broken[0])
	}
	return nil
}

// say prints one line.
func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", args...) }

// run prints cmdlet lines and runs them one by one.
func (d *demo) run(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		d.say("PS> %s", line)
		if err := d.Script(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

// differs records and prints a failed check.
func (d *demo) differs(format string, args ...any) {
	d.broken = append(d.broken, fmt.Sprintf(format, args...))
	d.say("DIFFERS: "+format, args...)
}

// subscriptions has a subscription for each region, so that the two vaults of a policy
// are not lost together.
var subscriptions = map[string]string{"eastus": "6c2f7e5a-0d3b-4b0e-9d57-1f0a6a3c8e01", "westus": "b1d94c37-7a52-4e8f-8c66-52e0d7f94a02"}

// createVault makes a vault with one key that a service principal may use.
func (d *demo) createVault(ctx context.Context, vault, key, location, principal string) error {
	return d.run(ctx,
		fmt.Sprintf("$context = Set-AzContext -SubscriptionId %s; ", subscriptions[location])+
			fmt.Sprintf("New-AzKeyVault -VaultName %s -ResourceGroupName Contoso-CK -Location %s -Sku Premium -EnablePurgeProtection | ft VaultName, Location", vault, location),
		fmt.Sprintf("Set-AzKeyVaultAccessPolicy -VaultName %s -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName %s", vault, principal),
		fmt.Sprintf("Add-AzKeyVaultKey -VaultName %s -Name %s -Destination HSM -KeyOps @('wrapKey','unwrapKey') | ft VaultName, Name, Version", vault, key))
}

func (d *demo) mailboxPolicy(ctx context.Context) error {
	if err := d.createVault(ctx, "Contoso-O365EX-NA-VaultA1", "Contoso-O365EX-NA-VaultA1-Key001", "eastus", exchange); err != nil {
		return err
	}
	if err := d.createVault(ctx, "Contoso-O365EX-NA-VaultA2", "Contoso-O365EX-NA-VaultA2-Key001", "westus", exchange); err != nil {
		return err
	}
	uri := func(n int) string {
		return fmt.Sprintf("https://Contoso-O365EX-NA-VaultA%d.%s/keys/Contoso-O365EX-NA-VaultA%d-Key001", n, d.Domain, n)
	}
	return d.run(ctx, fmt.Sprintf(`New-DataEncryptionPolicy -Name %s -Description "Root keys for mailboxes in the USA" -AzureKeyIDs %s, %s | fl Name, State`, policyName, uri(1), uri(2)))
}

func (d *demo) importMail(ctx context.Context) error {
	for _, user := range users {
		if err := d.run(ctx, "New-Mailbox -Name "+user+" | ft Identity", fmt.Sprintf("Set-Mailbox -Identity %s -DataEncryptionPolicy %s", user, policyName)); err != nil {
			return err
		}
	}
	for i, part := range d.Mail.split(len(users)) {
		user := users[i]
		bar := d.Progress("import "+user, part.size())
		imported, err := d.Client.ImportMail(ctx, api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: user}}, part.size(), counted(part.reader(), bar))
		bar.End()
		if err != nil {
			return err
		}
		d.mail[user] = part.digest()
		d.say("%s: %d messages, %d bytes, SHA-256 %s", user, imported.Messages, imported.Bytes, d.mail[user])
	}
	d.say("%s leaves the company; the mailbox is inactive from now on", inactive)
	var in api.SetMailboxStateInput
	in.Mailbox, in.Body.State = inactive, api.Inactive
	if _, err := d.Client.SetMailboxState(ctx, in); err != nil {
		return err
	}
	d.say("%d more empty mailboxes are created under the policy", emptyMailboxes)
	return d.Fill(ctx, policyName, emptyMailboxes)
}

func (d *demo) rollMailboxes(ctx context.Context) error {
	stay, err := d.policyID(ctx, inactive)
	if err != nil {
		return err
	}
	before, err := d.policyID(ctx, users[0])
	if err != nil {
		return err
	}
	show := "Get-MailboxStatistics -Identity " + users[0] + " | fl DataEncryptionPolicyID"
	err = d.run(ctx, show,
		`Add-AzureKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001 -Destination HSM -KeyOps @('wrapKey','unwrapKey') -NotBefore (Get-Date -Date "12/27/2016 12:01 AM") | ft VaultName, Version`,
		`Add-AzureKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA2 -Name Contoso-O365EX-NA-VaultA2-Key001 -Destination HSM -KeyOps @('wrapKey','unwrapKey') -NotBefore (Get-Date -Date "12/27/2016 12:01 AM") | ft VaultName, Version`,
		"Set-DataEncryptionPolicy "+policyName+" -Refresh")
	if err != nil {
		return err
	}
	if err := d.whileReading(ctx, func(ctx context.Context) error { return d.follow(ctx, policyName) }); err != nil {
		return err
	}
	if err := d.run(ctx, show); err != nil {
		return err
	}
	after, err := d.policyID(ctx, users[0])
	if err != nil {
		return err
	}
	if after == before {
		d.differs("the DataEncryptionPolicyID of %s did not change", users[0])
	}
	if now, err := d.policyID(ctx, inactive); err != nil || now != stay {
		d.differs("inactive mailbox %s did not keep its DataEncryptionPolicyID (%v)", inactive, err)
	}
	d.say("inactive mailbox %s keeps DataEncryptionPolicyID %s until it is read", inactive, stay)
	return nil
}

func (d *demo) sitePolicy(ctx context.Context) error {
	if err := d.createVault(ctx, "stageRG3vault", "SPKey3", "eastus", sharePoint); err != nil {
		return err
	}
	if err := d.createVault(ctx, "stageRG4vault", "SPKey4", "westus", sharePoint); err != nil {
		return err
	}
	if err := d.run(ctx, "New-SPOSite -Url "+site+" | ft Url"); err != nil {
		return err
	}
	bar := d.Progress("store files", int64(len(d.Files.Paths)))
	for i, path := range d.Files.Paths {
		sum, err := d.put(ctx, path)
		if err != nil {
			bar.End()
			return err
		}
		d.files[path] = sum
		bar.Set(int64(i + 1))
	}
	bar.End()
	d.say("%d files stored in %s", len(d.files), site)
	err := d.run(ctx, "Register-SPODataEncryptionPolicy -PrimaryKeyVaultName stageRG3vault -PrimaryKeyName SPKey3 -PrimaryKeyVersion "+versionOf("stageRG3vault", "SPKey3")+
		" -SecondaryKeyVaultName stageRG4vault -SecondaryKeyName SPKey4 -SecondaryKeyVersion "+versionOf("stageRG4vault", "SPKey4"))
	if err != nil {
		return err
	}
	if err := d.whileReading(ctx, func(ctx context.Context) error { return d.followSites(ctx) }); err != nil {
		return err
	}
	return d.run(ctx, "Get-SPODataEncryptionPolicy -Identity "+adminSite)
}

func versionOf(vault, key string) string {
	return fmt.Sprintf("(Get-AzKeyVaultKey -VaultName %s -Name %s).Version", vault, key)
}

func (d *demo) rollSites(ctx context.Context) error {
	for _, root := range []struct{ vault, key, kind string }{{"stageRG3vault", "SPKey3", "Primary"}, {"stageRG4vault", "SPKey4", "Secondary"}} {
		err := d.run(ctx,
			fmt.Sprintf("Add-AzKeyVaultKey -VaultName %s -Name %s -Destination HSM -KeyOps @('wrapKey','unwrapKey') | ft VaultName, Version", root.vault, root.key),
			fmt.Sprintf("Update-SPODataEncryptionPolicy -Identity %s -KeyVaultName %s -KeyName %s -KeyVersion %s -KeyType %s",
				adminSite, root.vault, root.key, versionOf(root.vault, root.key), root.kind))
		if err != nil {
			return err
		}
		if err := d.whileReading(ctx, func(ctx context.Context) error { return d.followSites(ctx) }); err != nil {
			return err
		}
	}
	return d.run(ctx, "Get-SPODataEncryptionPolicy -Identity "+adminSite, "Get-SPOSiteDataEncryptionPolicy -Identity "+site)
}

// followSites follows the newest roll of the site policy.
func (d *demo) followSites(ctx context.Context) error {
	l, err := d.Client.ListPolicies(ctx, api.ListInput{})
	if err != nil {
		return err
	}
	for _, p := range l.Items {
		if p.Kind == api.SitePolicy {
			return d.follow(ctx, p.ID)
		}
	}
	return fail.New(api.NotFound, "there is no site policy")
}

// follow follows the newest roll of a policy to its end.
func (d *demo) follow(ctx context.Context, policy string) error {
	p, err := d.Client.ShowPolicy(ctx, api.PolicyInput{Policy: policy})
	if err != nil {
		return err
	}
	if p.Roll == nil {
		return fail.New(api.NotFound, "policy %q has no roll", p.Name)
	}
	r, err := d.Watch(ctx, p.Roll.ID)
	if err != nil {
		return err
	}
	if r.State != api.RollFinished {
		return fail.New(api.Conflict, "the roll of policy %q ended as %s: %s", p.Name, r.State, r.Message)
	}
	d.say("%s", timed(r))
	d.rolls = append(d.rolls, r)
	return nil
}

// minForRate is how many containers a roll must have had for its rate to be printed.
const minForRate = 100

// timed describes how long a finished roll took.
func timed(r api.Roll) string {
	took := r.Finished.Sub(r.Started)
	line := fmt.Sprintf("roll of %s: %d containers in %s", r.Policy, r.Total, took.Round(time.Millisecond))
	if r.Total >= minForRate {
		line += fmt.Sprintf(", %.0f per second", float64(r.Total)/max(took.Seconds(), 1e-3))
	}
	return line
}

func (d *demo) policyID(ctx context.Context, mailbox string) (string, error) {
	m, err := d.Client.ShowMailbox(ctx, api.MailboxInput{Mailbox: mailbox})
	return m.Protection.DataEncryptionPolicyID, err
}

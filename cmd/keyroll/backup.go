package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/terminal"
)

type backupCommand struct {
	Create  backupCreate  `cmd:"" help:"Make a backup of a mailbox or a site."`
	List    backupList    `cmd:"" help:"List backups and what they are encrypted with."`
	Restore backupRestore `cmd:"" help:"Make a new mailbox or site from a backup."`
	Expire  backupExpire  `cmd:"" help:"Delete a backup."`
}

func (*backupCreate) Help() string {
	return terminal.Help("A backup shows the mailbox or site as it is at this moment. It copies the keys and the list of items, shares the stored content, and leaves the keys of the original as they are. "+
		"It has a container key of its own, which rolls move only with --include-inactive, and key usage counts it.",
		"keyroll backup create --mailbox alice@contoso.com --expires 2027-12-31",
		"keyroll backup create --site https://contoso.sharepoint.com/sites/legal")
}

func (*backupList) Help() string { return terminal.Help("", "keyroll backup list -o json") }

func (*backupRestore) Help() string {
	return terminal.Help("Creates a new mailbox or site: its name must be free, and its key is wrapped by the newest key of its policy. keyroll backup list shows the ids.",
		"keyroll backup restore 1763959200123456 --to alice-restored@contoso.com --policy USA_mailboxes",
		"keyroll backup restore 1763959200123456 --to https://contoso.sharepoint.com/sites/restored")
}

func (*backupExpire) Help() string {
	return terminal.Help("This needs no key, so it works when the policy is revoked. Content that nothing else references is deleted too.",
		"keyroll backup expire 1763959200123456")
}

type backupCreate struct {
	connection
	Mailbox string `name:"mailbox" xor:"container" placeholder:"NAME" help:"Mailbox to back up. Either --mailbox or --site is required."`
	Site    string `name:"site" xor:"container" placeholder:"URL" help:"Site to back up."`
	Expires string `name:"expires" placeholder:"DATE" help:"When the backup is deleted automatically, for example 2027-12-31 or 2027-12-31T18:00:00Z (default: never)."`
}

// Validate checks that a container is named. The tag required would list both flags as
// required in the usage line.
func (c *backupCreate) Validate() error {
	if c.Mailbox == "" && c.Site == "" {
		return errors.New("either --mailbox or --site is required")
	}
	return nil
}

func (c *backupCreate) Run(e *env) error {
	var in api.CreateBackupInput
	in.Body.Kind, in.Body.Container = string(container.Mailbox), c.Mailbox
	if c.Site != "" {
		in.Body.Kind, in.Body.Container = string(container.Site), c.Site
	}
	if c.Expires != "" {
		expires, err := date(c.Expires)
		if err != nil {
			return err
		}
		in.Body.Expires = &expires
	}
	return c.withClient(func(k *client.Client) error {
		b, err := k.CreateBackup(e, in)
		if err != nil {
			return err
		}
		return e.printBackup(b)
	})
}

// date reads a day, which means its midnight in local time, or a time as RFC 3339 writes it.
func date(text string) (time.Time, error) {
	if t, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fail.New(api.InvalidArgument, "%q is not a valid date", text).WithHint("write it as 2027-12-31 or 2027-12-31T18:00:00Z")
	}
	return t, nil
}

type backupList struct{ connection }

func (c *backupList) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		return listPages(e, "id kind container items bytes created expires policy dataEncryptionPolicyID", func(b api.Backup) []any {
			return []any{b.ID, b.Kind, b.Container, b.Items, terminal.Size(b.Bytes), terminal.Time(b.Created), formatExpiry(b), b.Protection.Policy, b.Protection.DataEncryptionPolicyID}
		}, func(page api.PageInput) (api.List[api.Backup], error) {
			return k.ListBackups(e, api.ListInput{PageInput: page})
		})
	})
}

type backupRestore struct {
	connection
	ID     string `arg:"" help:"Id of the backup."`
	To     string `name:"to" required:"" placeholder:"NAME" help:"Name of the new mailbox, URL of the new site."`
	Policy string `name:"policy" placeholder:"POLICY" help:"Policy of the new mailbox: name or GUID (default: the policy that the backed up mailbox had)."`
}

func (c *backupRestore) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		in := api.RestoreBackupInput{BackupInput: api.BackupInput{Backup: c.ID}}
		in.Body.To, in.Body.Policy = c.To, c.Policy
		b, err := k.RestoreBackup(e, in)
		if err != nil {
			return err
		}
		return e.Object(b, func(w io.Writer) {
			fmt.Fprintf(w, "%s, %s of %s %s restored as %s\n", terminal.Count(b.Items, "item"), terminal.Size(b.Bytes), b.Kind, terminal.Escape(b.Container), terminal.Escape(c.To))
		})
	})
}

type backupExpire struct {
	connection
	ID string `arg:"" help:"Id of the backup."`
}

func (c *backupExpire) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		b, err := k.ExpireBackup(e, api.BackupInput{Backup: c.ID})
		if err != nil {
			return err
		}
		return e.Object(b, func(w io.Writer) {
			fmt.Fprintf(w, "backup %s of %s %s has expired\n", b.ID, b.Kind, terminal.Escape(b.Container))
		})
	})
}

func (e *env) printBackup(b api.Backup) error {
	return e.Object(b, func(w io.Writer) {
		protected(w, b.Protection, "id", b.ID, "kind", b.Kind, "container", b.Container, "items", b.Items, "bytes", terminal.Size(b.Bytes),
			"created", terminal.Time(b.Created), "expires", formatExpiry(b))
	})
}

func formatExpiry(b api.Backup) string {
	if b.Expires == nil {
		return "-"
	}
	return terminal.Time(*b.Expires)
}

package main

import (
	"io"
	"os"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
	"keyroll/internal/terminal"
)

type mailboxCommand struct {
	Create mailboxCreate `cmd:"" help:"Create a mailbox."`
	Import mailboxImport `cmd:"" help:"Import the messages of an mbox file."`
	Export mailboxExport `cmd:"" help:"Write all messages as an mbox to standard output."`
	List   mailboxList   `cmd:"" help:"List mailboxes and what they are encrypted with."`
	Show   mailboxShow   `cmd:"" help:"Show one mailbox and what it is encrypted with."`
	State  mailboxState  `cmd:"" help:"Set the state of a mailbox: active, inactive, disconnected or disabled."`
}

type mailboxCreate struct {
	connection
	Name   string `arg:"" help:"Name of the mailbox, for example alice@contoso.com."`
	Policy string `name:"policy" placeholder:"POLICY" help:"Mailbox policy to assign: name or GUID (default: none)."`
}

func (c *mailboxCreate) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		var in api.CreateMailboxInput
		in.Body.Name, in.Body.Policy = c.Name, c.Policy
		m, err := k.CreateMailbox(e, in)
		if err != nil {
			return err
		}
		return e.printMailbox(m)
	})
}

type mailboxExport struct {
	connection
	Name string `arg:"" help:"Name of the mailbox."`
}

func (c *mailboxExport) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		r, err := k.ExportMail(e, api.MailboxInput{Mailbox: c.Name})
		return e.copy(r, err)
	})
}

type mailboxList struct{ connection }

func (c *mailboxList) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		return listPages(e, "name state items bytes policy dataEncryptionPolicyID", func(m api.Mailbox) []any {
			return []any{m.Name, m.State, m.Items, terminal.Size(m.Bytes), m.Protection.Policy, m.Protection.DataEncryptionPolicyID}
		}, func(page api.PageInput) (api.List[api.Mailbox], error) {
			return k.ListMailboxes(e, api.ListInput{PageInput: page})
		})
	})
}

type mailboxShow struct {
	connection
	Name string `arg:"" help:"Name of the mailbox."`
}

func (c *mailboxShow) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		m, err := k.ShowMailbox(e, api.MailboxInput{Mailbox: c.Name})
		if err != nil {
			return err
		}
		return e.printMailbox(m)
	})
}

type mailboxState struct {
	connection
	Name  string `arg:"" help:"Name of the mailbox."`
	State string `arg:"" enum:"active,inactive,disconnected,disabled" help:"active, inactive, disconnected or disabled."`
}

func (c *mailboxState) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		in := api.SetMailboxStateInput{MailboxInput: api.MailboxInput{Mailbox: c.Name}}
		in.Body.State = api.MailboxState(c.State)
		m, err := k.SetMailboxState(e, in)
		if err != nil {
			return err
		}
		return e.printMailbox(m)
	})
}

func (e *env) printMailbox(m api.Mailbox) error {
	return e.Object(m, func(w io.Writer) {
		protected(w, m.Protection, "name", m.Name, "state", m.State, "items", m.Items, "bytes", terminal.Size(m.Bytes), "created", terminal.Time(m.Created))
	})
}

// protected prints pairs as fields does, and the protection below them.
func protected(w io.Writer, p api.Protection, pairs ...any) {
	terminal.Fields(w, append(pairs, "policy", p.Policy, "policy ID", p.PolicyID, "DataEncryptionPolicyID", p.DataEncryptionPolicyID,
		"newest policy key", yesNo(p.Current), "encrypted", yesNo(p.IsEncrypted))...)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// withClient runs f with a client of the server that the flags select.
func (c connection) withClient(f func(*client.Client) error) error {
	t, err := c.find()
	if err != nil {
		return err
	}
	var left damaged
	t.Client.Damaged = left.add
	k, err := client.New(t.Client)
	if err != nil {
		return err
	}
	if err := f(k); err != nil {
		return err
	}
	return left.failure()
}

// open opens a file, or standard input for "-"; its size is -1 if unknown.
func (e *env) open(name string) (r io.Reader, size int64, done func() error, err error) {
	if name == "-" {
		return e.In, -1, func() error { return nil }, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, nil, fail.New(api.InvalidArgument, "the file cannot be read: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, nil, err
	}
	if info.IsDir() {
		f.Close()
		return nil, 0, nil, fail.New(api.InvalidArgument, "%s is a folder, not a file", name)
	}
	if !info.Mode().IsRegular() {
		return f, -1, f.Close, nil
	}
	return f, info.Size(), f.Close, nil
}

// copy writes a download to standard output.
func (e *env) copy(r io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(e.Out, r)
	return err
}

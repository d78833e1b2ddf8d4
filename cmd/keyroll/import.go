package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
	"keyroll/internal/terminal"
)

type mailboxImport struct {
	connection
	Name string `arg:"" help:"Name of the mailbox."`
	File string `arg:"" type:"path" help:"The mbox file, or - for standard input."`

	Format   string `name:"format" enum:"auto,mboxrd,mboxcl2" default:"auto" help:"How messages are separated. auto: at lines that begin with From, judged by the lines around them. mboxrd: at each line that begins with From. mboxcl2: by Content-Length. (default: ${default})"`
	Continue bool   `name:"continue" negatable:"" default:"true" help:"Continue an unfinished import of the same file after the messages that are stored (default: yes)."`
}

func (c *mailboxImport) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		in, total, done, err := e.open(c.File)
		if err != nil {
			return err
		}
		defer done()
		names, err := c.toContinue(e, k, total)
		if err != nil {
			return err
		}
		bar := e.Progress("import", total)
		var imported api.Imported
		for _, name := range append(names, uuid.NewString()) {
			imported, err = k.ImportMail(e, api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: c.Name}, Format: api.MailFormat(c.Format), Import: name}, total, bar.Reader(in))
			if p := (*api.Problem)(nil); !errors.As(err, &p) || p.Code != api.DifferentMail {
				err = c.withStored(e, k, name, err)
				break
			}
			if _, err := in.(io.Seeker).Seek(0, io.SeekStart); err != nil {
				return err
			}
		}
		bar.End()
		if err != nil {
			return err
		}
		return e.Object(imported, func(w io.Writer) {
			fmt.Fprintf(w, "%s, %s imported into %s%s\n", terminal.Count(imported.Messages, "message"), terminal.Size(imported.Bytes), terminal.Escape(c.Name), notes(imported))
		})
	})
}

// toContinue returns the unfinished imports that may have been of this file, of total
// bytes. Standard input can be read only once, so that it cannot be compared with
// several imports, and is refused while there are any.
func (c *mailboxImport) toContinue(e *env, k *client.Client, total int64) (names []string, err error) {
	if !c.Continue {
		return nil, nil
	}
	list, err := k.ListMailImports(e, api.MailboxInput{Mailbox: c.Name})
	if err != nil {
		return nil, err
	}
	for _, m := range list.Items {
		if total < 0 {
			return nil, fail.New(api.Conflict, "an earlier import into %s is unfinished (%d messages are stored), and standard input cannot be compared with it", c.Name, m.Messages).
				WithHint("name the file to continue that import, or import all of standard input with --no-continue")
		}
		if m.Bytes <= total {
			names = append(names, m.Import)
		}
	}
	return names, nil
}

// stopTimeout is how long keyroll waits to learn how much a failed import has stored.
const stopTimeout = 10 * time.Second

// withStored adds to the error of an import how many messages it has stored.
func (c *mailboxImport) withStored(e *env, k *client.Client, name string, err error) error {
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e), stopTimeout)
	defer cancel()
	m, unknown := k.StopMailImport(ctx, api.MailImportInput{MailboxInput: api.MailboxInput{Mailbox: c.Name}, Import: name})
	const again = "run the same command again: it continues after the messages that are stored"
	var p *api.Problem
	answered := errors.As(err, &p) && p.Request != ""
	code, text := api.Unavailable, ""
	if p != nil {
		code, text = p.Code, p.Detail+"; "
	}
	switch {
	case answered && (unknown != nil || m.Messages == 0 || p.Hint != ""):
		return err // the server's problem says all of it
	case answered:
		return fail.New(code, "%s", p.Detail).WithHint(again)
	case unknown != nil:
		return fail.New(code, "%sit is not known how many messages are stored", text).WithHint(again)
	case m.Finished:
		return fail.New(code, "%sall %d messages are stored, and the import has finished", text, m.Messages).WithHint("there is nothing to continue")
	case m.Messages == 0:
		return fail.New(code, "%sno message is stored", text)
	}
	return fail.New(code, "%s%d messages are stored", text, m.Messages).WithHint(again)
}

// notes returns what the user may want to check after an import.
func notes(i api.Imported) (text string) {
	if n := i.Before; n > 0 {
		text += fmt.Sprintf("; %d were stored before", n)
	}
	if n := i.NoEmptyLine; n == 1 {
		text += "; 1 separator without a blank line before it"
	} else if n > 1 {
		text += fmt.Sprintf("; %d separators without a blank line before them", n)
	}
	if n := i.FromText; n == 1 {
		text += `; 1 line that begins with "From " taken as text`
	} else if n > 1 {
		text += fmt.Sprintf(`; %d lines that begin with "From " taken as text`, n)
	}
	return text
}

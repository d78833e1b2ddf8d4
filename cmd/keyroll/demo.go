package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/connect"
	"keyroll/internal/container"
	"keyroll/internal/demo"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/store"
	"keyroll/internal/terminal"
)

type demoCommand struct {
	Data  string `name:"data" type:"path" placeholder:"DIR" help:"New data folder to work in, kept afterwards (default: a temporary folder)."`
	Mail  string `name:"mail" type:"path" placeholder:"FILE.mbox" help:"Mail to use (default: the commits of the git repository around the current folder)."`
	Files string `name:"files" type:"path" placeholder:"DIR" help:"Files to use (default: those of the current folder)."`
}

func (c *demoCommand) Run(e *env) (err error) {
	out := e.Out
	if e.JSON {
		out = e.ErrOut // standard output holds what the cmdlets emit
	}
	mail, files, err := c.content(e)
	if err != nil {
		return err
	}
	data, err := c.folder()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && c.Data == "" && e.Err() != nil { // interrupted: a half-made folder is of no use
			err = errors.Join(err, os.RemoveAll(data))
		}
	}()
	fmt.Fprintf(out, "data folder: %s\nmail: %s\nfiles: %d\n", data, terminal.Size(mail.Size()), len(files.Paths))
	n, err := node.Start(e, node.Options{Data: data})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	t, err := connect.TargetOf(n.Info)
	if err != nil {
		return err
	}
	k, err := client.New(t.Client)
	if err != nil {
		return err
	}
	defer k.Close()
	shell, err := newShell(t, e)
	if err != nil {
		return err
	}
	defer shell.close()
	err = demo.Run(e, demo.Options{
		Client: k,
		Script: shell.run,
		Fill: func(ctx context.Context, policy string, mailboxes int) error {
			return fill(ctx, n, policy, mailboxes)
		},
		Watch:    func(_ context.Context, id string) (api.Roll, error) { return watch(e, k, id) },
		Progress: func(title string, total int64) demo.Bar { return e.Progress(title, total) },
		Domain:   n.Info.VaultDomain,
		Mail:     mail,
		Files:    files,
		Out:      out,
	})
	if err == nil {
		fmt.Fprintf(out, "keyroll serve --data %s serves the data of this demo\n", data)
	}
	return err
}

// folder returns the folder to work in. It refuses one that is not empty.
func (c *demoCommand) folder() (string, error) {
	if c.Data == "" {
		return os.MkdirTemp("", "keyroll-demo-")
	}
	entries, err := os.ReadDir(c.Data)
	if err == nil && len(entries) > 0 {
		return "", fail.New(api.AlreadyExists, "folder %s is not empty", c.Data).WithHint("name a new one, or omit --data")
	}
	return c.Data, os.MkdirAll(c.Data, 0o700)
}

// content finds the mail and the files to work on.
func (c *demoCommand) content(e *env) (mail demo.Mail, files demo.Files, err error) {
	tree := c.Files
	if tree == "" {
		if tree, err = os.Getwd(); err != nil {
			return mail, files, err
		}
	}
	if files, err = demo.Tree(e, tree, c.Data); err != nil {
		return mail, files, err
	}
	if c.Mail != "" {
		mail, err = demo.ReadMail(c.Mail)
		return mail, files, err
	}
	mail, ok := demo.History(e, ".")
	if !ok {
		fmt.Fprintln(e.ErrOut, "This folder has no git history to use as mail; the demo uses only the files.")
	}
	return mail, files, nil
}

// fill makes empty mailboxes under a policy, whole key pages at a time.
func fill(ctx context.Context, n *node.Node, policy string, mailboxes int) error {
	var id int64
	err := n.DB.View(ctx, func(tx *store.Tx) error {
		pol, err := n.Policies.Find(ctx, tx, n.Tenant.ID, policy)
		id = pol.ID
		return err
	})
	if err != nil {
		return err
	}
	names := make([]string, mailboxes)
	for i := range names {
		names[i] = fmt.Sprintf("user%04d@contoso.com", i)
	}
	return n.Containers.CreateMany(ctx, n.Tenant.ID, container.Mailbox, names, id)
}

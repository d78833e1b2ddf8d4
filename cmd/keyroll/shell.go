package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/cmdlet"
	"keyroll/internal/cmdlet/vaults"
	"keyroll/internal/connect"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/terminal"
)

type shellCommand struct {
	connection
	VaultDomain string  `name:"vault-domain" default:"${vaultDomain}" placeholder:"DOMAIN" help:"Domain of the vaults of --server (default: ${default})."`
	Command     *string `name:"command" short:"c" placeholder:"TEXT" help:"Cmdlet lines to run."`
	File        string  `arg:"" optional:"" type:"path" placeholder:"FILE.ps1" help:"File of cmdlet lines to run. Without -c and without a file the shell reads standard input, and is interactive on a terminal."`
}

func (c *shellCommand) Run(e *env) error {
	if c.Command != nil && c.File != "" {
		return fail.New(api.InvalidArgument, "-c and a file are both given; use only one of them")
	}
	t, err := c.find()
	if err != nil {
		return err
	}
	if t.VaultDomain == "" {
		t.VaultDomain = c.VaultDomain
	}
	if err := t.CheckTenant(e); err != nil {
		return err
	}
	var left damaged
	t.Client.Damaged = left.add
	s, err := newShell(t, e)
	if err != nil {
		return err
	}
	switch {
	case c.Command != nil:
		err = s.run(e, *c.Command)
	case c.File != "":
		raw, readErr := os.ReadFile(c.File)
		if readErr != nil {
			return fail.New(api.InvalidArgument, "the script cannot be read: %w", readErr)
		}
		var text string
		if text, err = cmdlet.DecodeText(raw); err == nil {
			err = s.run(e, text)
		}
	default:
		err = cmdlet.Interact(e, e.In, s.options)
	}
	if err == nil {
		err = left.failure()
	}
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	cmdlet.PrintError(e.ErrOut, err)
	return statusError(fail.Lookup(fail.CodeOf(err)).Exit)
}

// shell runs cmdlet lines against one server.
type shell struct {
	options cmdlet.Options
	// close closes idle connections.
	close func()
}

func (s shell) run(ctx context.Context, text string) error { return cmdlet.Run(ctx, text, s.options) }

// newShell returns a shell on a server, with what it prints going to e.
func newShell(t connect.Target, e *env) (shell, error) {
	service, err := client.New(t.Client)
	if err != nil {
		return shell{}, err
	}
	transport, err := t.Transport()
	if err != nil {
		return shell{}, err
	}
	v, err := vaults.New(vaults.Options{URL: t.URL, Domain: t.VaultDomain, Token: t.Client.Token, HTTP: &http.Client{Transport: transport}})
	if err != nil {
		return shell{}, err
	}
	return shell{
		options: cmdlet.Options{Service: service, Vaults: v, Out: e.Out, Err: e.ErrOut, JSON: e.JSON, Width: e.Width(), Now: time.Now},
		close:   func() { service.Close(); transport.CloseIdleConnections() },
	}, nil
}

// quietly runs cmdlet lines against a node of this process and discards their output.
func quietly(ctx context.Context, n *node.Node, text string) error {
	t, err := connect.TargetOf(n.Info)
	if err != nil {
		return err
	}
	shell, err := newShell(t, &env{ctx, terminal.Terminal{Out: io.Discard, ErrOut: io.Discard}})
	if err != nil {
		return err
	}
	defer shell.close()
	return shell.run(ctx, text)
}

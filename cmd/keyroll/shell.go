package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/cmdlet"
	"keyroll/internal/cmdlet/vaults"
	"keyroll/internal/fail"
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
	if err := t.checkTenant(e); err != nil {
		return err
	}
	var left damaged
	t.client.Damaged = left.add
	s, err := t.shell(e)
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
		err = cmdlet.Interact(e, e.in, s.options)
	}
	if err == nil {
		err = left.failure()
	}
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	cmdlet.PrintError(e.err, err)
	return statusError(fail.Lookup(fail.CodeOf(err)).Exit)
}

// checkTenant makes a first request to the service if a tenant was named: vaults do
// not check that the token belongs to that tenant, the service does.
func (t target) checkTenant(ctx context.Context) error {
	if t.client.Tenant == "" {
		return nil
	}
	k, err := client.New(t.client)
	if err != nil {
		return err
	}
	defer k.Close()
	_, err = k.ListGeos(ctx, api.ListInput{PageInput: api.PageInput{Limit: 1}})
	return err
}

// shell runs cmdlet lines against one server.
type shell struct {
	options cmdlet.Options
	// close closes idle connections.
	close func()
}

func (s shell) run(ctx context.Context, text string) error { return cmdlet.Run(ctx, text, s.options) }

// shell returns a shell on the server, with what it prints going to e.
func (t target) shell(e *env) (shell, error) {
	service, err := client.New(t.client)
	if err != nil {
		return shell{}, err
	}
	transport, err := t.transport()
	if err != nil {
		return shell{}, err
	}
	v, err := vaults.New(vaults.Options{URL: t.URL, Domain: t.VaultDomain, Token: t.client.Token, HTTP: &http.Client{Transport: transport}})
	if err != nil {
		return shell{}, err
	}
	return shell{
		options: cmdlet.Options{Service: service, Vaults: v, Out: e.out, Err: e.err, JSON: e.asJSON, Width: width(e.out), Now: time.Now},
		close:   func() { service.Close(); transport.CloseIdleConnections() },
	}, nil
}

// transport trusts the server's certificate authority and connects to the server for
// its vaults, so that their names need not be in the DNS.
func (t target) transport() (*http.Transport, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		return nil, fail.New(api.InvalidArgument, "server URL %q is not of the form https://HOST:PORT", t.URL)
	}
	server := u.Host
	if u.Port() == "" {
		server = net.JoinHostPort(u.Hostname(), "443")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(t.client.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(t.client.CA)
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Transport{
		TLSClientConfig:   config,
		ForceAttemptHTTP2: true,
		IdleConnTimeout:   time.Minute,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, _, _ := net.SplitHostPort(addr)
			if strings.HasSuffix(strings.ToLower(host), "."+t.VaultDomain) {
				addr = server
			}
			return dialer.DialContext(ctx, network, addr)
		},
	}, nil
}

// width returns the columns of the terminal that w is, 0 for anything else.
func width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}

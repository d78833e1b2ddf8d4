package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/connect"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/terminal"
)

type verifyCommand struct {
	connection
	stores
	Policy      string `name:"policy" placeholder:"POLICY" help:"Verify only what this policy protects, and test its root keys: each wraps and unwraps once, and the time is reported."`
	RequireOpen bool   `name:"require-open" help:"Exit 1 also if any data is inaccessible by policy: a revoked key, a vault that is unreachable, a purged policy."`
}

func (c *verifyCommand) Run(e *env) (err error) {
	tenants, done, err := c.orOffline(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	report := api.Verified{Closed: []api.Finding{}, Damaged: []api.Finding{}}
	for _, t := range tenants {
		bar := e.Progress(strings.TrimSpace("verify "+t.name), -1)
		part, err := t.client.Verify(e, api.VerifyInput{Policy: c.Policy}, func(p api.VerifyProgress) {
			bar.SetNote(p.Stage)
			bar.SetTotal(p.Total)
			bar.Set(p.Done)
		})
		bar.End()
		if err != nil {
			return err
		}
		addReport(&report, part, t.name)
	}
	if err := e.Object(report, func(w io.Writer) { showVerified(w, report) }); err != nil {
		return err
	}
	if len(report.Damaged) > 0 || c.RequireOpen && len(report.Closed) > 0 {
		return statusError(1)
	}
	return nil
}

// addReport adds the report of one tenant to the sum. The tenant's name, unless it is
// empty, is put before the detail of each finding.
func addReport(sum *api.Verified, part api.Verified, tenant string) {
	sum.Probes = append(sum.Probes, part.Probes...)
	sum.PolicyKeys += part.PolicyKeys
	sum.Wraps += part.Wraps
	sum.Containers += part.Containers
	sum.BlobKeys += part.BlobKeys
	sum.Items += part.Items
	sum.Bytes += part.Bytes
	sum.VaultKeys += part.VaultKeys
	sum.Tables = max(sum.Tables, part.Tables) // of the whole database in each part
	for _, both := range []struct {
		to   *[]api.Finding
		from []api.Finding
	}{{&sum.Closed, part.Closed}, {&sum.Damaged, part.Damaged}, {&sum.VaultMade, part.VaultMade}, {&sum.Notices, part.Notices}} {
		for _, f := range both.from {
			if tenant != "" {
				f.Detail = "tenant " + tenant + ": " + f.Detail
			}
			*both.to = append(*both.to, f)
		}
	}
}

// verified is a tenant to verify; its name is empty where it is the only one.
type verified struct {
	name   string
	client *client.Client
}

// orOffline connects to the running server, for one tenant. If none runs, it starts
// a node without workers on the data folder.
func (c *verifyCommand) orOffline(e *env) (tenants []verified, done func() error, err error) {
	if c.Server == "" {
		if _, err := os.Stat(c.Data); errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fail.New(api.InvalidArgument, "data folder %s does not exist", c.Data).
				WithHint("name one with --data, or a running server with --server")
		}
		if c.Database == "" && !node.IsFolder(c.Data) {
			return nil, nil, fail.New(api.InvalidArgument, "%s is not a data folder: it has no database", c.Data)
		}
		n, err := node.Start(e, node.Options{Data: c.Data, Database: c.Database, Blobs: c.Blobs, Seal: c.Seal, Availability: c.Availability, Idle: true})
		if err == nil {
			tenants, err := c.tenantsOf(e, n)
			done := func() error {
				for _, t := range tenants {
					t.client.Close()
				}
				return n.Close()
			}
			if err != nil {
				return nil, nil, errors.Join(err, done())
			}
			return tenants, done, nil
		}
		if !fail.Is(err, api.FolderInUse) {
			return nil, nil, err
		}
	}
	k, err := c.connect()
	if err != nil {
		return nil, nil, err
	}
	return []verified{{client: k}}, func() error { k.Close(); return nil }, nil
}

// tenantsOf returns the tenants to verify on a node of this process: the one that
// --tenant names, or else the first for --policy and all without it.
func (c *verifyCommand) tenantsOf(e *env, n *node.Node) ([]verified, error) {
	t, err := connect.TargetOf(n.Info)
	if err != nil {
		return nil, err
	}
	all, tokens, err := n.Tenants(e)
	if err != nil {
		return nil, err
	}
	var list []verified
	for i, tenant := range all {
		named := c.Tenant == tenant.Name || strings.EqualFold(c.Tenant, tenant.GUID.String())
		if c.Tenant != "" && !named || c.Tenant == "" && c.Policy != "" && i > 0 {
			continue
		}
		t.Client.Token = tokens[i]
		k, err := client.New(t.Client)
		if err != nil {
			return list, err
		}
		list = append(list, verified{tenant.Name, k})
	}
	if len(list) == 0 {
		return nil, fail.New(api.NotFound, "tenant %q does not exist", c.Tenant)
	}
	if len(all) == 1 {
		list[0].name = ""
	}
	return list, nil
}

// localClient connects to a node of this process.
func localClient(n *node.Node) (*client.Client, error) {
	t, err := connect.TargetOf(n.Info)
	if err != nil {
		return nil, err
	}
	return client.New(t.Client)
}

func probed(p api.Probe) string {
	switch {
	case p.Unwraps:
		return "wraps and unwraps"
	case p.Wraps:
		return "wraps, but cannot unwrap: " + terminal.Escape(p.Detail)
	}
	return "cannot wrap: " + terminal.Escape(p.Detail)
}

func showVerified(w io.Writer, v api.Verified) {
	for _, p := range v.Probes {
		fmt.Fprintf(w, "%s key %s: %s, %.1f ms\n", p.Root, terminal.Escape(p.Key), probed(p), p.Milliseconds)
	}
	terminal.Fields(w, "policy keys decrypted", fmt.Sprintf("%d, by %d wraps", v.PolicyKeys, v.Wraps), "container keys decrypted", v.Containers,
		"blob keys decrypted", v.BlobKeys, "items read", fmt.Sprintf("%d, %s", v.Items, terminal.Size(v.Bytes)),
		"vault keys decrypted", v.VaultKeys, "tables checked", v.Tables, "inaccessible by policy", len(v.Closed), "damaged", len(v.Damaged))
	for _, f := range v.Closed {
		fmt.Fprintf(w, "inaccessible: %s %s: %s\n", f.Kind, f.ID, terminal.Escape(f.Detail))
	}
	for _, f := range v.VaultMade {
		fmt.Fprintf(w, "wrapped by its vault: %s %s: %s\n", f.Kind, f.ID, terminal.Escape(f.Detail))
	}
	for _, f := range v.Damaged {
		fmt.Fprintf(w, "damaged: %s %s: %s\n", f.Kind, f.ID, terminal.Escape(f.Detail))
	}
	for _, f := range v.Notices {
		fmt.Fprintf(w, "notice: %s %s: %s\n", f.Kind, f.ID, terminal.Escape(f.Detail))
	}
}

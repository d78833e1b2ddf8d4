package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
	"keyroll/internal/node"
)

type verifyCommand struct {
	connection
	Policy      string `name:"policy" placeholder:"POLICY" help:"Only what this policy protects."`
	RequireOpen bool   `name:"require-open" help:"Exit 1 also if anything is closed by a rule: a revoked key, a vault that is away."`
}

func (c *verifyCommand) Run(e *env) (err error) {
	k, done, err := c.orOffline(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	bar := e.progress("verify", -1)
	report, err := k.Verify(e, api.VerifyInput{Policy: c.Policy}, func(p api.VerifyProgress) {
		bar.note(p.Stage)
		bar.of(p.Total)
		bar.Set(p.Done)
	})
	bar.End()
	if err != nil {
		return err
	}
	if err := e.object(report, func(w io.Writer) { showVerified(w, report) }); err != nil {
		return err
	}
	if len(report.Damaged) > 0 || c.RequireOpen && len(report.Closed) > 0 {
		return statusError(1)
	}
	return nil
}

// orOffline connects to the running server, or starts a still node on the data
// folder if none runs.
func (c connection) orOffline(e *env) (k *client.Client, done func() error, err error) {
	if c.Server == "" {
		if _, err := os.Stat(c.Data); errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fail.New(api.InvalidArgument, "data folder %s does not exist", c.Data).
				WithHint("name one with --data, or a running server with --server")
		}
		if _, err := os.Stat(filepath.Join(c.Data, node.DatabaseFile)); err != nil {
			return nil, nil, fail.New(api.InvalidArgument, "%s is no data folder: it holds no database", c.Data)
		}
		n, err := node.Start(e, node.Options{Data: c.Data, Still: true})
		if err == nil {
			k, err := localClient(n)
			if err != nil {
				return nil, nil, errors.Join(err, n.Close())
			}
			return k, func() error { k.Close(); return n.Close() }, nil
		}
		if !fail.Is(err, api.FolderInUse) {
			return nil, nil, err
		}
	}
	k, err = c.connect()
	return k, func() error { k.Close(); return nil }, err
}

// localClient connects to a node of this process.
func localClient(n *node.Node) (*client.Client, error) {
	t, err := targetOf(n.Info)
	if err != nil {
		return nil, err
	}
	return client.New(t.client)
}

func probed(p api.Probe) string {
	switch {
	case p.Unwraps:
		return "wraps and unwraps"
	case p.Wraps:
		return "wraps, does not unwrap: " + clean(p.Detail)
	}
	return "does not wrap: " + clean(p.Detail)
}

func showVerified(w io.Writer, v api.Verified) {
	for _, p := range v.Probes {
		fmt.Fprintf(w, "%s key %s: %s, %.1f ms\n", p.Root, clean(p.Key), probed(p), p.Milliseconds)
	}
	fields(w, "policy keys opened", fmt.Sprintf("%d, by %d wraps", v.PolicyKeys, v.Wraps), "container keys opened", v.Containers,
		"blob keys opened", v.BlobKeys, "items read", fmt.Sprintf("%d, %s", v.Items, size(v.Bytes)),
		"closed by a rule", len(v.Closed), "damaged", len(v.Damaged))
	for _, f := range v.Closed {
		fmt.Fprintf(w, "closed: %s %s: %s\n", f.Kind, f.ID, clean(f.Detail))
	}
	for _, f := range v.Damaged {
		fmt.Fprintf(w, "damaged: %s %s: %s\n", f.Kind, f.ID, clean(f.Detail))
	}
}

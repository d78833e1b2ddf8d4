// Package nodetest provides tests with a complete running keyroll: a real node on a
// data folder, its client, and a shell.
//
// It fakes nothing and uses the same interfaces as any user. Each helper fails the
// test if its request is refused; a test that expects a refusal calls Client or
// TryScript. Start reading at Start.
package nodetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/cmdlet"
	"keyroll/internal/cmdlet/vaults"
	"keyroll/internal/node"
	"keyroll/internal/store/storetest"
	"keyroll/internal/vault/vaulttest"
)

// World is a running node with its client.
type World struct {
	Node   *node.Node
	Client *client.Client
	Info   node.Info
	Data   string // data folder
	Token  string // of the tenant's admin

	t          testing.TB
	options    node.Options
	shell      cmdlet.Options
	transport  *http.Transport          // of the shell
	outside    *World                   // has the customers' vaults; nil if they are embedded
	unresolved atomic.Pointer[[]string] // vaults whose names do not resolve
}

// Start starts a node, by default on a new data folder and with a database as
// storetest.One returns. It is closed at the test's end. By default its transactions
// run in storetest.Mode.
func Start(t testing.TB, o node.Options) *World { t.Helper(); return start(t, o, nil) }

func start(t testing.TB, o node.Options, outside *World) *World {
	t.Helper()
	if o.ForTests == nil {
		mode := storetest.Mode(t)
		o.ForTests = &mode
	}
	if o.MakeRSA == nil {
		o.MakeRSA = vaulttest.RSA
	}
	if o.Data == "" {
		o.Data = filepath.Join(t.TempDir(), "data")
		if o.Database == "" && storetest.OnPostgres() {
			o.Database = storetest.PostgresURL(t)
		}
	}
	w := &World{Data: o.Data, t: t, options: o, outside: outside}
	w.start()
	t.Cleanup(w.Stop)
	return w
}

// Folder returns the name of a new data folder for a node whose database is in it, even
// if tests run on PostgreSQL: for tests that copy data folders.
func Folder(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "data")
}

func (w *World) start() {
	w.t.Helper()
	// The test's context is not used, because it ends before the node is closed.
	n, err := node.Start(context.Background(), w.options)
	if err != nil {
		w.t.Fatalf("start the node: %v", err)
	}
	w.Node = n
	w.connect(n.Info)
}

// Around returns a World for a node that the caller has started and closes.
func Around(t testing.TB, n *node.Node) *World {
	t.Helper()
	w := &World{Node: n, t: t}
	w.connect(n.Info)
	return w
}

// Connect returns a World for a server that runs in another process; its Node
// is nil.
func Connect(t testing.TB, data string) *World {
	t.Helper()
	w := &World{Data: data, t: t}
	text, err := os.ReadFile(filepath.Join(data, node.InfoFile))
	if err != nil {
		t.Fatal(err)
	}
	var info node.Info
	if err := json.Unmarshal(text, &info); err != nil {
		t.Fatal(err)
	}
	w.connect(info)
	return w
}

func (w *World) connect(info node.Info) {
	w.t.Helper()
	token, err := os.ReadFile(info.AdminTokenFile)
	if err != nil {
		w.t.Fatal(err)
	}
	w.connectAs(info, strings.TrimSpace(string(token)))
}

// As returns the same running node with another principal's bearer token.
func (w *World) As(token string) *World {
	w.t.Helper()
	other := &World{Node: w.Node, Data: w.Data, t: w.t, options: w.options, outside: w.outside}
	other.connectAs(w.Info, token)
	return other
}

func (w *World) connectAs(info node.Info, token string) {
	w.t.Helper()
	w.Info, w.Token = info, token
	ca, err := os.ReadFile(info.CAFile)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.Client, err = client.New(client.Options{URL: info.URL, Token: w.Token, CA: ca}); err != nil {
		w.t.Fatal(err)
	}
	w.transport = w.dialer(ca)
	v, err := vaults.New(vaults.Options{URL: info.URL, Domain: info.VaultDomain, Token: w.Token, HTTP: &http.Client{Transport: w.transport}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.shell = cmdlet.Options{Service: w.Client, Vaults: v, Now: time.Now}
	if w.outside != nil {
		w.shell.Vaults = w.outside.shell.Vaults
	}
}

// Vaults accesses the node's vaults and their management with the official clients.
func (w *World) Vaults() cmdlet.Vaults { return w.shell.Vaults }

// HTTP is a client that trusts the node and reaches its vaults.
func (w *World) HTTP() *http.Client { return &http.Client{Transport: w.transport} }

// dialer connects to the node for its vaults, whose names are not in the DNS.
func (w *World) dialer(ca []byte) *http.Transport {
	server, err := url.Parse(w.Info.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, server.Host)
		},
	}
}

// Stop closes the node and its clients. Stopping twice does nothing.
func (w *World) Stop() {
	w.t.Helper()
	w.Client.Close()
	w.transport.CloseIdleConnections()
	if w.Node == nil {
		return
	}
	if err := w.Node.Close(); err != nil {
		w.t.Errorf("close the node: %v", err)
	}
}

// Restart stops the node and starts another one on its data folder, with options
// changed by edit, which may be nil.
func (w *World) Restart(edit func(o *node.Options)) {
	w.t.Helper()
	w.Stop()
	if edit != nil {
		edit(&w.options)
	}
	w.start()
}

// Script runs cmdlet lines and returns what they print.
func (w *World) Script(lines ...string) string {
	w.t.Helper()
	out, err := w.TryScript(lines...)
	if err != nil {
		w.t.Fatalf("%s\n%v", strings.Join(lines, "\n"), err)
	}
	return out
}

// AnswerYes answers the confirmations of later scripts with yes.
func (w *World) AnswerYes() {
	w.shell.Confirm = func(context.Context, string) (bool, error) { return true, nil }
}

// TryScript runs cmdlet lines that may be refused.
func (w *World) TryScript(lines ...string) (string, error) {
	var out, warnings bytes.Buffer
	o := w.shell
	o.Out, o.Err = &out, &warnings
	err := cmdlet.Run(w.t.Context(), strings.Join(lines, "\n"), o)
	return out.String(), err
}

// pollEvery is how often a roll is checked, longestRoll how long it may take even on a
// slow machine before it counts as stuck.
const (
	pollEvery   = 10 * time.Millisecond
	longestRoll = 10 * time.Minute
)

// WaitRoll waits until the newest roll of a policy has ended and returns it.
func (w *World) WaitRoll(policy string) api.Roll {
	w.t.Helper()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for begin := time.Now(); ; {
		p, err := w.Client.ShowPolicy(w.t.Context(), api.PolicyInput{Policy: policy})
		if err != nil {
			w.t.Fatal(err)
		}
		if p.Roll == nil {
			w.t.Fatalf("policy %q has no roll", policy)
		}
		if p.Roll.State != api.RollRunning {
			return *p.Roll
		}
		if time.Since(begin) > longestRoll {
			w.t.Fatalf("the roll of %q has not ended in %v: %+v", policy, longestRoll, *p.Roll)
		}
		<-tick.C
	}
}

// WaitPurges waits until every approved purge is carried out.
func (w *World) WaitPurges() {
	w.t.Helper()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for begin := time.Now(); ; {
		list, err := w.Client.ListPurges(w.t.Context(), api.ListInput{})
		if err != nil {
			w.t.Fatal(err)
		}
		i := slices.IndexFunc(list.Items, func(p api.Purge) bool { return p.State == api.PurgeApproved })
		if i < 0 {
			return
		}
		if time.Since(begin) > longestRoll {
			w.t.Fatalf("the purge of %q has not ended in %v: %+v", list.Items[i].Policy, longestRoll, list.Items[i])
		}
		<-tick.C
	}
}

// FinishRoll waits for the newest roll of a policy and fails the test if it did not finish.
func (w *World) FinishRoll(policy string) api.Roll {
	w.t.Helper()
	r := w.WaitRoll(policy)
	if r.State != api.RollFinished {
		w.t.Fatalf("the roll of %q ended as %s: %s", policy, r.State, r.Message)
	}
	return r
}

// Verify runs verify and returns the report.
func (w *World) Verify() api.Verified {
	w.t.Helper()
	v, err := w.Client.Verify(w.t.Context(), api.VerifyInput{}, nil)
	if err != nil {
		w.t.Fatalf("verify: %v", err)
	}
	return v
}

// VerifyClean fails the test if verify finds anything damaged or inaccessible.
func (w *World) VerifyClean() api.Verified {
	w.t.Helper()
	v := w.Verify()
	for _, f := range append(v.Damaged, v.Closed...) {
		w.t.Errorf("verify: %s %s: %s", f.Kind, f.ID, f.Detail)
	}
	return v
}

// CopyFolder copies a data folder that no node uses, with the modes of its files.
func CopyFolder(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if entry.IsDir() {
			return os.Mkdir(target, info.Mode().Perm())
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

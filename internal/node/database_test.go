package node_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/proxytest"
	"keyroll/internal/store/storetest"
)

// throughProxy returns the address of a new PostgreSQL database behind a proxy.
func throughProxy(t *testing.T) (address string, proxy *proxytest.Proxy) {
	t.Helper()
	address = storetest.PostgresURL(t)
	proxy = proxytest.New(t, "unix", storetest.Socket(address))
	return storetest.Through(address, proxy.Addr()), proxy
}

// answer makes a request without the client, which does not return headers.
func answer(t *testing.T, w *nodetest.World, path string) (status int, retryAfter string) {
	t.Helper()
	ca, err := os.ReadFile(w.Info.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.Info.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.Token)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Retry-After")
}

// While its database is unavailable a node reports that and keeps running; afterwards
// everything continues by itself, including an unfinished roll, and nothing is lost.
func TestNodeRecoversWithItsDatabase(t *testing.T) {
	t.Parallel()
	const mail = "From alice@contoso.com Thu Jan  1 00:00:00 2026\nSubject: hello\n\nbody\n"
	address, proxy := throughProxy(t)
	w := nodetest.Start(t, node.Options{Database: address, PageSlots: 4, RollRate: 20})
	w.StageMail()
	for _, name := range []string{"alice@contoso.com", "a@contoso.com", "b@contoso.com", "c@contoso.com", "d@contoso.com", "e@contoso.com"} {
		w.Mailbox(name, nodetest.MailboxPolicy)
	}
	w.Import("alice@contoso.com", mail)
	w.RefreshMail()

	proxy.Cut()
	for _, path := range []string{"/readyz", "/v1/policies"} {
		if status, after := answer(t, w, path); status != http.StatusServiceUnavailable || after == "" {
			t.Errorf("%s: status %d, Retry-After %q", path, status, after)
		}
	}
	if status, _ := answer(t, w, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: status %d: restarting the process would not help", status)
	}
	_, err := w.Client.ListPolicies(t.Context(), api.ListInput{})
	var p *api.Problem
	if !errors.As(err, &p) || p.Code != api.Unavailable || p.Hint == "" {
		t.Errorf("%v", err)
	}

	proxy.Heal()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); ; <-tick.C {
		if status, _ := answer(t, w, "/readyz"); status == http.StatusOK {
			break
		}
		if time.Since(begin) > 10*time.Minute {
			t.Fatal("the node has not come back")
		}
	}
	if got := w.Export("alice@contoso.com"); got != mail {
		t.Errorf("export is %q", got)
	}
	w.FinishRoll(nodetest.MailboxPolicy)
	w.VerifyClean()
}

// A node does not wait for an unavailable database when it starts: it says what to do,
// and leaves nothing behind that would affect a later start.
func TestNodeRefusesToStartWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	address, proxy := throughProxy(t)
	proxy.Cut()
	o := node.Options{Data: filepath.Join(t.TempDir(), "data"), Database: address}
	_, err := node.Start(context.Background(), o)
	if _, _, hint := fail.Public(err); !fail.Is(err, api.Unavailable) || hint == "" {
		t.Fatalf("%v, hint %q", err, hint)
	}
	proxy.Heal()
	nodetest.Start(t, o).VerifyClean()
}

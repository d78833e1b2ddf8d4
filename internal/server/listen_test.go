package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/ca"
	"keyroll/internal/listen"
	"keyroll/internal/seal"
	"keyroll/internal/store/storetest"
)

func TestHealthAndReadiness(t *testing.T) {
	w := newTestServer(t, false)
	status := func(path string) int {
		resp, _ := w.raw("GET", path, "", "Authorization", "")
		return resp.StatusCode
	}
	if status("/healthz") != 200 || status("/readyz") != 200 {
		t.Error("not ready")
	}
	w.ready.Store(false)
	if status("/healthz") != 200 || status("/readyz") != 503 || status("/openapi.json") != 200 || status("/v1/policies") != 401 {
		t.Error("starting or draining")
	}
	_, err := w.client.ListPolicies(background, api.ListInput{})
	if p := problem(t, err); p.Code != api.Unavailable || p.Status != 503 || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	if name, _ := w.service.lastCall(); name != "" {
		t.Errorf("%s was reached", name)
	}
}

// listening is a server under TLS with keyroll's own certificates.
type listening struct {
	url    string
	ca     []byte
	client *client.Client
	stop   context.CancelFunc
	done   chan error
}

func startListening(t *testing.T, w *testServer, grace time.Duration) *listening {
	t.Helper()
	s, err := seal.Open(background, "file://"+filepath.Join(t.TempDir(), "seal"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.Open(background, storetest.One(t), s)
	if err != nil {
		t.Fatal(err)
	}
	config, err := authority.TLS([]string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(background)
	l := &listening{url: "https://" + ln.Addr().String(), ca: authority.PEM(), stop: stop, done: make(chan error, 1)}
	go func() {
		l.done <- listen.Serve(ctx, ln, w.handler, listen.Config{TLS: config, Log: slog.New(slog.DiscardHandler), Grace: grace, Limits: &listen.Limits{}})
	}()
	if l.client, err = client.New(client.Options{URL: l.url, Token: "good", CA: l.ca}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); l.client.Close() })
	return l
}

func TestShutdownWaitsForRunningRequests(t *testing.T) {
	w := newTestServer(t, false)
	l := startListening(t, w, time.Minute)
	began, finish := make(chan struct{}), make(chan struct{})
	w.service.write = func(ctx context.Context, _, _ int64, out io.Writer) error {
		if _, err := io.WriteString(out, "begin"); err != nil {
			return err
		}
		close(began)
		<-finish
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := io.WriteString(out, " end")
		return err
	}
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		r, err := l.client.ExportMail(background, api.MailboxInput{Mailbox: "m"})
		if err != nil {
			got <- answer{err: err}
			return
		}
		defer r.Close()
		text, err := io.ReadAll(r)
		got <- answer{string(text), err}
	}()
	<-began
	l.stop()
	for { // until the listener is closed
		conn, err := net.Dial("tcp", strings.TrimPrefix(l.url, "https://"))
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-l.done:
		t.Fatalf("stopped before the request had ended: %v", err)
	default:
	}
	close(finish)
	if a := <-got; a.text != "begin end" || a.err != nil {
		t.Errorf("%q, %v", a.text, a.err)
	}
	if err := <-l.done; err != nil {
		t.Error(err)
	}
	_, err := l.client.ListPolicies(background, api.ListInput{})
	if p := problem(t, err); p.Code != api.Unavailable || !strings.Contains(p.Detail, l.url+" cannot be reached") || !strings.Contains(p.Hint, "keyroll serve") {
		t.Errorf("%+v", p)
	}
}

func TestShutdownClosesRequestsThatExceedTheGracePeriod(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Run("server", func(t *testing.T) {
		w := newTestServer(t, false)
		l := startListening(t, w, time.Nanosecond)
		began, returned := make(chan struct{}), make(chan struct{})
		w.service.write = func(ctx context.Context, _, _ int64, out io.Writer) error {
			defer close(returned)
			close(began)
			<-ctx.Done()
			return ctx.Err()
		}
		failed := make(chan error, 1)
		go func() {
			_, err := l.client.ExportMail(background, api.MailboxInput{Mailbox: "m"})
			failed <- err
		}()
		<-began
		l.stop()
		if err := <-l.done; err != nil {
			t.Error(err)
		}
		select {
		case <-returned:
		default:
			t.Error("Serve returned before its handlers")
		}
		if err := <-failed; problem(t, err).Code != api.Unavailable {
			t.Error(err)
		}
	})
	if err := goleak.Find(leaks); err != nil {
		t.Error(err)
	}
}

func TestListenerSpeaksModernTLSAndHTTP2(t *testing.T) {
	w := newTestServer(t, false)
	l := startListening(t, w, time.Minute)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(l.ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(l.url + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.TLS.Version != tls.VersionTLS13 {
		t.Errorf("%s, %s", resp.Proto, tls.VersionName(resp.TLS.Version))
	}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(l.url, "https://"), &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	if err == nil {
		conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

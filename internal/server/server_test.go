package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/access"
	"keyroll/internal/server"
)

// testServer is a server over a fake service, with a client.
type testServer struct {
	t       *testing.T
	service *fakeService
	auth    fakeAuth
	ready   atomic.Bool
	log     *logBuffer
	handler http.Handler
	http    *httptest.Server
	client  *client.Client
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newTestServer starts a server that speaks HTTP/1.1, or HTTP/2 if http2 is set.
func newTestServer(t *testing.T, http2 bool) *testServer {
	t.Helper()
	w := &testServer{t: t, service: &fakeService{}, log: &logBuffer{}}
	w.auth = fakeAuth{access.Principal{ID: uuid.New(), Tenant: 7, Name: "root", Roles: []api.Role{api.Global}}}
	w.ready.Store(true)
	w.handler = server.NewWithFake(server.Config{
		Auth: w.auth, Ready: w.ready.Load,
		Log: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, w.service)
	w.http = httptest.NewUnstartedServer(w.handler)
	w.http.EnableHTTP2 = http2
	w.http.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	w.http.StartTLS()
	t.Cleanup(w.http.Close)
	w.client = w.newClient("good")
	return w
}

func (w *testServer) newClient(token string) *client.Client {
	w.t.Helper()
	c, err := client.New(client.Options{URL: w.http.URL, Token: token, CA: w.ca(), Patience: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

func (w *testServer) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.http.Certificate().Raw})
}

// both runs test over HTTP/1.1 and over HTTP/2.
func both(t *testing.T, test func(t *testing.T, w *testServer)) {
	t.Run("http1", func(t *testing.T) { test(t, newTestServer(t, false)) })
	t.Run("http2", func(t *testing.T) { test(t, newTestServer(t, true)) })
}

// raw sends a request unchanged and returns the response with its body.
func (w *testServer) raw(method, path, body string, header ...string) (*http.Response, string) {
	w.t.Helper()
	r, err := http.NewRequest(method, w.http.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer good")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := w.http.Client().Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(text)
}

// problemIn decodes a problem document strictly.
func problemIn(t *testing.T, resp *http.Response, body string) api.Problem {
	t.Helper()
	if kind := resp.Header.Get("Content-Type"); kind != "application/problem+json" {
		t.Fatalf("%d is of type %q: %s", resp.StatusCode, kind, body)
	}
	var p api.Problem
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if p.Status != resp.StatusCode || p.Title != http.StatusText(p.Status) || p.Type != "about:blank" || p.Request == "" || p.Request != resp.Header.Get("X-Request-Id") {
		t.Errorf("%d with X-Request-Id %q: %+v", resp.StatusCode, resp.Header.Get("X-Request-Id"), p)
	}
	return p
}

// problem returns err as the problem it must be.
func problem(t *testing.T, err error) *api.Problem {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) {
		t.Fatalf("no problem: %v", err)
	}
	return p
}

var background = context.Background()

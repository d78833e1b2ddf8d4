package client_test

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"keyroll/api"
	"keyroll/client"
)

// startOtherServer starts a server that is not keyroll.
func startOtherServer(t *testing.T, answer http.HandlerFunc) (*httptest.Server, client.Options) {
	t.Helper()
	s := httptest.NewUnstartedServer(answer)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return s, client.Options{URL: s.URL, Token: "S3cret", CA: ca}
}

func open(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func list(c *client.Client) error {
	_, err := c.ListPolicies(context.Background(), api.ListInput{})
	return err
}

func code(err error) api.Code {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

func TestInvalidOptionsAreRefused(t *testing.T) {
	for _, o := range []client.Options{
		{}, {URL: "localhost:8443"}, {URL: "http://localhost:8443"}, {URL: "https://"}, {URL: "https://:8443"}, {URL: "https://h/v1"},
		{URL: "https://user@h"}, {URL: "https://h?x=1"}, {URL: "https://h#x"}, {URL: "https://h:port"}, {URL: "https://h\n"},
		{URL: "https://h", Token: "S3cret\nX: y"}, {URL: "https://h", Token: "S3cret "}, {URL: "https://h", CA: []byte("S3cret")},
	} {
		_, err := client.New(o)
		if code(err) != api.InvalidArgument || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	for _, url := range []string{"https://h", "https://h:1/", "https://[::1]:8443", "HTTPS://h"} {
		if _, err := client.New(client.Options{URL: url}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestTokenIsSentOnlyToTheConfiguredServer(t *testing.T) {
	elsewhere, _ := startOtherServer(t, func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("reached with %q", r.Header.Get("Authorization"))
	})
	_, o := startOtherServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
	})
	c := open(t, o)
	_, imported := c.ImportMail(context.Background(), api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: "m"}}, 1, strings.NewReader("x"))
	_, exported := c.ExportMail(context.Background(), api.MailboxInput{Mailbox: "m"})
	for _, err := range []error{list(c), imported, exported} {
		if code(err) != api.Unavailable || !strings.Contains(err.Error(), "is not keyroll: it answered 307") {
			t.Errorf("%v", err)
		}
	}
}

func TestErrorNamesAnUnreachableServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "https://" + ln.Addr().String()
	ln.Close()
	c := open(t, client.Options{URL: url})
	_, err = c.ShowMailbox(context.Background(), api.MailboxInput{Mailbox: "alice"})
	var p *api.Problem
	if !errors.As(err, &p) || p.Code != api.Unavailable || p.Hint != "check the address, and that keyroll serve runs there" || !strings.Contains(p.Detail, url+" cannot be reached") ||
		!strings.Contains(p.Detail, "refused") || strings.Contains(p.Detail, "alice") {
		t.Errorf("%+v", err)
	}
}

func TestUntrustedServerGetsNoToken(t *testing.T) {
	s, _ := startOtherServer(t, func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("reached with %q", r.Header.Get("Authorization"))
	})
	var p *api.Problem
	if err := list(open(t, client.Options{URL: s.URL, Token: "S3cret"})); !errors.As(err, &p) || p.Code != api.Unavailable ||
		!strings.Contains(p.Detail, "not trusted") || !strings.Contains(p.Hint, "caFile") {
		t.Errorf("%+v", p)
	}
}

func TestErrorNamesTheHostThatACertificateDoesNotCover(t *testing.T) {
	s, _ := startOtherServer(t, func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	var p *api.Problem
	err := list(open(t, client.Options{URL: strings.Replace(s.URL, "127.0.0.1", "localhost", 1), CA: authority}))
	if !errors.As(err, &p) || p.Code != api.Unavailable || !strings.Contains(p.Detail, `is not valid for "localhost", only for: example.com`) || !strings.Contains(p.Detail, "127.0.0.1") {
		t.Errorf("%+v", p)
	}
}

func TestErrorSaysThatAServerIsNotKeyroll(t *testing.T) {
	for name, c := range map[string]struct {
		kind, body string
		status     int
		want       api.Code
	}{
		"html":                      {"text/html", "<h1>welcome</h1>", 200, api.Unavailable},
		"html error":                {"text/html", "<h1>bad gateway</h1>", 502, api.Unavailable},
		"json error":                {"application/json", `{"code":"NotFound"}`, 404, api.Unavailable},
		"problem without a code":    {"application/problem+json", `{"title":"x"}`, 404, api.Unavailable},
		"problem that is no object": {"application/problem+json", `[]`, 404, api.Unavailable},
		"problem that breaks off":   {"application/problem+json", `{"code":"Not`, 404, api.Unavailable},
		"problem":                   {"application/problem+json; charset=utf-8", `{"code":"NotFound","detail":"no"}`, 404, api.NotFound},
		"content instead of json":   {"application/octet-stream", `{}`, 200, api.Unavailable},
		"json that breaks off":      {"application/json", `{"items":[`, 200, api.Truncated},
		"json of another shape":     {"application/json", `{"items":5}`, 200, api.Truncated},
	} {
		_, o := startOtherServer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		})
		if err := list(open(t, o)); code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIgnoredRangeRequestIsAnError(t *testing.T) {
	_, o := startOtherServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.WriteString(w, "whole content")
	})
	_, err := open(t, o).GetFile(context.Background(), api.FileInput{SiteInput: api.SiteInput{Site: "s"}, Path: "p"}, 3, 4)
	if code(err) != api.Unavailable {
		t.Errorf("%v", err)
	}
}

func TestCancelledCallReturnsItsContextsError(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	_, o := startOtherServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/policies" {
			cancel()
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.WriteString(w, "beginning")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		// A handler that returned would end the content as complete, and its end can
		// reach the client before the client has closed the connection.
		panic(http.ErrAbortHandler)
	})
	c := open(t, o)
	if _, err := c.ListPolicies(ctx, api.ListInput{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	r, err := c.ExportMail(ctx, api.MailboxInput{Mailbox: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 9)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestVerifyThatEndsWithoutAReportIsTruncated(t *testing.T) {
	for _, body := range []string{"", `{"progress":{"stage":"items","done":1,"total":2}}` + "\n", `{"report":{"ite`} {
		_, o := startOtherServer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-ndjson")
			_, _ = io.WriteString(w, body)
		})
		if _, err := open(t, o).Verify(context.Background(), api.VerifyInput{}, nil); code(err) != api.Truncated {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// A connection costs a TLS handshake: readers that run at the same time keep theirs.
func TestConcurrentDownloadsKeepTheirConnections(t *testing.T) {
	const readers, rounds = 16, 5
	var opened atomic.Int64
	var together sync.WaitGroup // the requests of one round are answered once all have arrived
	s, o := startOtherServer(t, func(w http.ResponseWriter, _ *http.Request) {
		together.Done()
		together.Wait()
		w.Header().Set("Content-Type", string(api.Bytes))
		io.WriteString(w, "content")
	})
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	c := open(t, o)
	for range rounds {
		together.Add(readers)
		var reading sync.WaitGroup
		for range readers {
			reading.Go(func() {
				r, err := c.GetFile(context.Background(), api.FileInput{}, 0, -1)
				if err == nil {
					_, err = io.Copy(io.Discard, r)
					r.Close()
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		reading.Wait()
	}
	if n := opened.Load(); n > readers {
		t.Errorf("%d rounds of %d downloads opened %d connections", rounds, readers, n)
	}
}

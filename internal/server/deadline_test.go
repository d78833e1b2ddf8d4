package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
)

// notedDeadlines notes the deadlines that a handler sets on its connection.
type notedDeadlines struct {
	*httptest.ResponseRecorder
	read, write []time.Time
}

func (n *notedDeadlines) SetReadDeadline(t time.Time) error { n.read = append(n.read, t); return nil }
func (n *notedDeadlines) SetWriteDeadline(t time.Time) error {
	n.write = append(n.write, t)
	return nil
}

// deadlineService is a service of three operations that looks at deadlines.
type deadlineService struct {
	Service
	during func()
}

func (s deadlineService) CreateSite(context.Context, api.CreateSiteInput) (api.Site, error) {
	s.during()
	return api.Site{}, nil
}

func (s deadlineService) ImportMail(_ context.Context, _ api.MailboxInput, _ int64, r io.Reader) (api.Imported, error) {
	_, err := io.Copy(io.Discard, r)
	s.during()
	return api.Imported{}, err
}

func (s deadlineService) ExportMail(_ context.Context, _ api.MailboxInput, w io.Writer) error {
	_, err := fmt.Fprint(w, "content")
	s.during()
	return err
}

type anyone struct{}

func (anyone) CheckTenant(context.Context, access.Principal, string) error { return nil }

func (anyone) Authenticate(context.Context, string) (access.Principal, error) {
	return access.Principal{}, nil
}

// A read deadline that stands after the body has come cancels the operation
// once it passes, and a write deadline breaks the connection's next answer.
func TestDeadlinesBoundTransfersAndNotOperations(t *testing.T) {
	for _, c := range []struct{ name, method, path, body string }{
		{"json", "POST", "/v1/sites", `{"url":"https://a"}`},
		{"upload", "POST", "/v1/mailboxes/a/mbox", "content"},
		{"download", "GET", "/v1/mailboxes/a/mbox", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &notedDeadlines{ResponseRecorder: httptest.NewRecorder()}
			reached := false
			h := New(Config{Auth: anyone{}, Log: slog.New(slog.DiscardHandler), Ready: func() bool { return true },
				Service: deadlineService{during: func() {
					reached = true
					if c.body != "" && (len(w.read) < 2 || w.read[0].IsZero() || !w.read[len(w.read)-1].IsZero()) {
						t.Errorf("read deadlines while the operation runs: %v", w.read)
					}
					if c.name == "download" && (len(w.write) == 0 || w.write[0].IsZero()) {
						t.Errorf("write deadlines while content leaves: %v", w.write)
					}
				}}})
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			r.Header.Set("Authorization", "Bearer x")
			if c.body == "" {
				r.Body, r.ContentLength = http.NoBody, 0
			}
			h.ServeHTTP(w, r)
			if w.Code != http.StatusOK || !reached {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if n := len(w.write); n > 0 && !w.write[n-1].IsZero() {
				t.Errorf("write deadlines left: %v", w.write)
			}
		})
	}
}

package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
)

// notedDeadlines records the deadlines that a handler sets on its connection.
type notedDeadlines struct {
	*httptest.ResponseRecorder
	read []time.Time
}

func (n *notedDeadlines) SetReadDeadline(t time.Time) error { n.read = append(n.read, t); return nil }

type anyone struct{}

func (anyone) CheckTenant(context.Context, access.Principal, string) error { return nil }

func (anyone) Authenticate(context.Context, string) (access.Principal, error) {
	return access.Principal{}, nil
}

// A read deadline that is still set after the body has arrived would cancel the operation
// when it passes.
func TestTheDeadlineOfABodyEndsWithTheBody(t *testing.T) {
	w := &notedDeadlines{ResponseRecorder: httptest.NewRecorder()}
	reached := false
	c := Config{Auth: anyone{}, Log: slog.New(slog.DiscardHandler), Ready: func() bool { return true }}
	allow := func(context.Context, api.Meta) error { return nil }
	h := newHandler(c, allow, []operation{call(api.CreateSite, func(context.Context, api.CreateSiteInput) (api.Site, error) {
		reached = true
		if len(w.read) < 2 || w.read[0].IsZero() || !w.read[len(w.read)-1].IsZero() {
			t.Errorf("read deadlines while the operation runs: %v", w.read)
		}
		return api.Site{}, nil
	})})
	r := httptest.NewRequest("POST", "/v1/sites", strings.NewReader(`{"url":"https://a"}`))
	r.Header.Set("Authorization", "Bearer x")
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK || !reached {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

package server_test

import (
	"net/http"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
)

// An operation that the caller's role does not allow is refused as that, whatever the input.
func TestRoleIsCheckedBeforeTheInput(t *testing.T) {
	w := newTestServer(t, false)
	w.service.role = fail.New(api.Forbidden, "the role is not enough")
	for _, m := range api.Operations() {
		path := strings.NewReplacer("{", "", "}", "").Replace(m.Path)
		resp, body := w.raw(m.Method, path+"?unknown&twice=1&twice=2", "no JSON", "Content-Type", "text/plain", "Content-Encoding", "gzip")
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s %s", m.Name, resp.Status, body)
		}
	}
}

func TestBodyInAContentCodingIsRefused(t *testing.T) {
	w := newTestServer(t, false)
	for _, m := range api.Operations() {
		path := strings.NewReplacer("{", "", "}", "").Replace(m.Path)
		for coding, refused := range map[string]bool{"gzip": true, "identity, br": true, "identity": false} {
			resp, body := w.raw(m.Method, path, "\x1f\x8b", "Content-Encoding", coding)
			if refused != (resp.StatusCode == http.StatusUnsupportedMediaType) || refused && !strings.Contains(body, "content coding") {
				t.Errorf("%s, %s: %s %s", m.Name, coding, resp.Status, body)
			}
		}
	}
}

func TestTwoMembersOfOneNameAreRefused(t *testing.T) {
	w := newTestServer(t, false)
	for _, body := range []string{`{"url":"https://a","url":"https://b"}`, `{"url":"https://a","URL":"https://b"}`} {
		resp, answer := w.raw("POST", "/v1/sites", body, "Content-Type", "application/json")
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(answer, "two members of the same name") {
			t.Errorf("%s %s", resp.Status, answer)
		}
	}
	if len(w.service.calls) != 0 {
		t.Error("the service was reached")
	}
}

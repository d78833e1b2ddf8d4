package vault_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// onceOnly are the requests that are not idempotent, each with what a client reads to
// find out the result if the answer was lost.
var onceOnly = []struct {
	method string
	path   *regexp.Regexp
	body   string // that its body has
	read   string // nothing: it left nothing that could be read
	status int    // of the answer that was lost
}{
	{"POST", regexp.MustCompile(`^/keys/([^/]+)/create$`), "", "/keys/$1", 200},
	{"PUT", regexp.MustCompile(`^/keys/([^/]+)$`), "", "/keys/$1", 200},
	{"POST", regexp.MustCompile(`^/keys/restore$`), "", "/keys/NEWEST", 200},
	{"DELETE", regexp.MustCompile(`^/keys/([^/]+)$`), "", "/deletedkeys/$1", 200},
	{"POST", regexp.MustCompile(`^/deletedkeys/([^/]+)/recover$`), "", "/keys/$1", 200},
	{"DELETE", regexp.MustCompile(`^/deletedkeys/([^/]+)$`), "", "", 204},
	{"PUT", regexp.MustCompile(`^(/subscriptions/.*/vaults/[^/]+)$`), `"recover"`, "$1", 200},
	{"POST", regexp.MustCompile(`^/subscriptions/.*/deletedVaults/[^/]+/purge$`), "", "", 200},
}

// askAgain is a handler with a client that repeats a request when the answer is 503, as
// the official clients do: commits lose their answers as in storetest.Ask.
func (w *testServer) askAgain(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // an interrupted body is refused like a truncated one
		send := func(ctx context.Context, method, path string) *httptest.ResponseRecorder {
			again := r.Clone(ctx)
			again.Method, again.Body = method, io.NopCloser(bytes.NewReader(body))
			again.URL.Path, again.URL.RawPath = path, ""
			if path == r.URL.Path {
				again.URL.RawPath = r.URL.RawPath
			}
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, again)
			return answer
		}
		var answer *httptest.ResponseRecorder
		act := func(ctx context.Context) error {
			if answer = send(ctx, r.Method, r.URL.Path); answer.Code == http.StatusServiceUnavailable {
				return fail.New(api.Unavailable, "%s", answer.Body)
			}
			return nil
		}
		var happened func() bool
		for _, once := range onceOnly {
			if r.Method != once.method || !once.path.MatchString(r.URL.Path) || !strings.Contains(string(body), once.body) {
				continue
			}
			before := w.rows()
			happened = func() bool {
				if w.rows() == before {
					return false
				}
				answer = httptest.NewRecorder()
				if once.read != "" {
					path := once.path.ReplaceAllString(r.URL.Path, once.read)
					answer = send(r.Context(), "GET", strings.Replace(path, "NEWEST", w.newestKey(), 1))
				}
				answer.Code = once.status
				return true
			}
		}
		_ = storetest.Ask(r.Context(), w.t, act, happened)
		for name, values := range answer.Header() {
			rw.Header()[name] = values
		}
		rw.WriteHeader(answer.Code)
		_, _ = rw.Write(answer.Body.Bytes())
	})
}

// rows counts the rows that requests of onceOnly create, delete or change.
func (w *testServer) rows() (counted [5]int) {
	w.view(func(tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT (SELECT COUNT(*) FROM vault), (SELECT COUNT(*) FROM vault WHERE deleted = 0), (SELECT COUNT(*) FROM vault_key),
			(SELECT COUNT(*) FROM vault_key WHERE deleted = 0), (SELECT COUNT(*) FROM vault_key_version)`).
			Scan(&counted[0], &counted[1], &counted[2], &counted[3], &counted[4])
	})
	return counted
}

func (w *testServer) newestKey() (name string) {
	w.view(func(tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT COALESCE((SELECT name FROM vault_key ORDER BY id DESC LIMIT 1), '')`).Scan(&name)
	})
	return name
}

func (w *testServer) view(f func(tx *store.Tx) error) {
	if err := w.db.View(ctx, f); err != nil {
		w.t.Error(err)
	}
}

// A key that was deleted or disabled, even without an answer, is removed from the cache.
func TestNoKeyStaysDecryptedWhenTheAnswerWasLost(t *testing.T) {
	n := contoso(t, sqlite(t))
	for _, row := range []struct{ method, path, body string }{
		{"PATCH", "/keys/k", `{"attributes":{"enabled":false}}`},
		{"DELETE", "/keys/k", ""},
	} {
		c := n.keys("contoso-A")
		create(t, c, "k", rsa2048())
		wrapped, err := c.WrapKey(ctx, "k", "", wrapParameters("RSA-OAEP-256", []byte("x")), nil)
		if err != nil {
			t.Fatal(err)
		}
		if open := n.vaults.Opened(); open != 0 {
			t.Errorf("%d keys are open after a wrap, which needs only the public key", open)
		}
		if _, err := c.UnwrapKey(ctx, "k", "", wrapParameters("RSA-OAEP-256", wrapped.Result), nil); err != nil {
			t.Fatal(err)
		}
		if open := n.vaults.Opened(); open != 1 {
			t.Fatalf("%d keys are open", open)
		}
		losing, lost := storetest.LoseAt(ctx, 1)
		r := httptest.NewRequestWithContext(losing, row.method, n.url("contoso-A")+row.path+"?api-version=7.4", strings.NewReader(row.body))
		r.Header.Set("Authorization", "Bearer "+n.token)
		answer := httptest.NewRecorder()
		n.vaults.Handler().ServeHTTP(answer, r)
		if answer.Code != http.StatusServiceUnavailable || !lost() {
			t.Errorf("%s: %d %s", row.method, answer.Code, answer.Body)
		}
		if open := n.vaults.Opened(); open != 0 {
			t.Errorf("%s: %d keys are open", row.method, open)
		}
	}
}

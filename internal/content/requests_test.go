package content_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"keyroll/internal/blob"
	"keyroll/internal/blob/s3test"
	"keyroll/internal/content"
	"keyroll/internal/items"
	"keyroll/internal/store/storetest"
)

// countRequests puts a proxy before an S3 server, and returns its address and a function
// that returns the requests since the last call.
func countRequests(t *testing.T, server string) (addr string, take func() []string) {
	t.Helper()
	var mu sync.Mutex
	var seen []string
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: server})
		r.Out.Host = r.In.Host // it is signed
	}}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Method+" "+r.URL.RequestURI())
		mu.Unlock()
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	return strings.TrimPrefix(proxy.URL, "http://"), func() []string {
		mu.Lock()
		defer mu.Unlock()
		list := seen
		seen = nil
		return list
	}
}

// A thousand small messages are stored by at most four requests to S3.
func TestAThousandMessagesTakeFewRequestsToS3(t *testing.T) {
	const messages, most = 1000, 4
	server := s3test.Start(t)
	server.Setenv(t)
	addr, take := countRequests(t, server.Addr)
	w := newFixture(t, storetest.One(t))
	w.Sizes = items.Sizes{} // those of production
	blobs, err := blob.Open(t.Context(), server.URL(addr, "requests"))
	must(t, err)
	c := w.Connect(blobs)
	var mail strings.Builder
	for i := range messages {
		mail.WriteString("From a@contoso.com Mon Jan  1 00:00:00 2024\nSubject: a\n\n" + strings.Repeat(string('a'+rune(i%26)), 440) + "\n\n")
	}
	take()
	_, err = c.Import(t.Context(), w.Mail, int64(mail.Len()), strings.NewReader(mail.String()), content.ImportOptions{})
	must(t, err)
	written := take()
	var got bytes.Buffer
	must(t, c.Export(t.Context(), w.Mail, &got))
	read := take()
	if got.String() != mail.String() {
		t.Error("the mailbox reads otherwise")
	}
	t.Logf("%d requests to write, %d to read", len(written), len(read))
	if len(written) == 0 || len(written) > most {
		t.Errorf("%d requests to write: %q", len(written), written[:min(len(written), 10)])
	}
}

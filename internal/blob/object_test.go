package blob_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/blob/azuretest"
	"keyroll/internal/blob/blobtest"
	"keyroll/internal/blob/s3test"
	"keyroll/internal/fail"
	"keyroll/internal/proxytest"
)

// service is a running object service.
type service struct {
	addr string
	url  func(addr, prefix string) string
}

// openAt opens the test's own part of the service, at addr.
func (s service) openAt(t *testing.T, addr string) blob.Store {
	t.Helper()
	opened, err := blob.Open(t.Context(), s.url(addr, strings.ToLower(t.Name())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	return opened
}

// each runs tests on both object services.
func each(t *testing.T, test func(t *testing.T, s service)) {
	t.Run("S3", func(t *testing.T) {
		server := s3test.Start(t)
		server.Setenv(t)
		test(t, service{server.Addr, server.URL})
	})
	t.Run("Azure", func(t *testing.T) {
		server := azuretest.Start(t)
		server.Setenv(t)
		test(t, service{server.Addr, server.URL})
	})
}

func TestObjectStoresConform(t *testing.T) {
	each(t, func(t *testing.T, s service) {
		blobtest.Run(t, func(t *testing.T) blob.Store { return blob.SmallPages(s.openAt(t, s.addr)) })
		t.Run("ItIsTheSameAgain", func(t *testing.T) {
			if one, two := s.openAt(t, s.addr).Identity(), s.openAt(t, s.addr).Identity(); one != two || len(one) < 20 {
				t.Errorf("%q, then %q", one, two)
			}
		})
		t.Run("AwayIsUnavailable", s.testUnavailable)
		t.Run("AReadGoesOnAfterABreak", s.testInterruptedRead)
		t.Run("AStalledReadEnds", s.testStalledRead)
		t.Run("APutIsDoneThoughItsAnswerIsLost", s.testLostAnswer)
		t.Run("WrongCredentialsAreNamed", s.testWrongCredentials)
	})
}

// If a store does not respond, no blob is reported as missing.
func (s service) testUnavailable(t *testing.T) {
	p := proxytest.New(t, "tcp", s.addr)
	store := s.openAt(t, p.Addr())
	blob.RetryAtOnce(store)
	if _, err := store.PutIfAbsent(t.Context(), "aa/1", strings.NewReader("kept")); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	batch := store.Batch()
	if _, err := batch.Put(t.Context(), "aa/3", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	_, put := store.PutIfAbsent(t.Context(), "aa/2", strings.NewReader("x"))
	_, big := store.PutIfAbsent(t.Context(), "aa/2", bytes.NewReader(make([]byte, 10<<20)))
	_, get := store.GetRange(t.Context(), "aa/1", 0, -1)
	_, stat := store.Stat(t.Context(), "aa/1")
	for doing, err := range map[string]error{"put": put, "put big": big, "get": get, "stat": stat,
		"delete": store.Delete(t.Context(), "aa/1"), "commit": batch.Commit(t.Context())} {
		if !fail.Is(err, api.Unavailable) || !strings.Contains(err.Error(), "blob aa/") {
			t.Errorf("%s: %v", doing, err)
		}
	}
	if err := store.List(t.Context(), "", func(string, int64) error { return nil }); !fail.Is(err, api.Unavailable) {
		t.Errorf("list: %v", err)
	}
	p.Heal()
	if got := read(t, store, "aa/1"); got != "kept" {
		t.Errorf("read %q when it was back", got)
	}
}

func read(t *testing.T, s blob.Store, name string) string {
	t.Helper()
	r, err := s.GetRange(t.Context(), name, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func (s service) testInterruptedRead(t *testing.T) {
	p := proxytest.New(t, "tcp", s.addr)
	store := s.openAt(t, p.Addr())
	body := strings.Repeat("0123456789abcdef", 1<<20)
	if _, err := store.PutIfAbsent(t.Context(), "aa/1", strings.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	r, err := store.GetRange(t.Context(), "aa/1", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, 1<<20)
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	p.Heal()
	rest, err := io.ReadAll(r)
	if err != nil || string(got)+string(rest) != body {
		t.Errorf("%d bytes after the break, %v", len(rest), err)
	}
}

func (s service) testStalledRead(t *testing.T) {
	p := proxytest.New(t, "tcp", s.addr)
	store := s.openAt(t, p.Addr())
	if _, err := store.PutIfAbsent(t.Context(), "aa/1", strings.NewReader(strings.Repeat("x", 16<<20))); err != nil {
		t.Fatal(err)
	}
	r, err := store.GetRange(t.Context(), "aa/1", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	blob.RetryAtOnce(store)
	blob.ShortTimeout(store)
	p.Stall()
	defer p.Resume()
	if n, err := io.Copy(io.Discard, r); !fail.Is(err, api.Unavailable) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// The service carries out each request, but its first answer to it is lost.
func (s service) testLostAnswer(t *testing.T) {
	for name, first := range map[string]func(r *http.Request) bool{
		"put": func(r *http.Request) bool { return r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "aa/1") },
		"part": func(r *http.Request) bool {
			return r.URL.Query().Get("partNumber") == "2" || r.URL.Query().Get("comp") == "block"
		},
		"end": func(r *http.Request) bool {
			return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") || r.URL.Query().Get("comp") == "blocklist"
		},
	} {
		t.Run(name, func(t *testing.T) {
			var lost atomic.Bool
			proxy := &httputil.ReverseProxy{
				Rewrite: func(p *httputil.ProxyRequest) {
					p.SetURL(&url.URL{Scheme: "http", Host: s.addr})
					p.Out.Host = p.In.Host // it is signed
				},
				ModifyResponse: func(answer *http.Response) error {
					if answer.StatusCode < 300 && first(answer.Request) && lost.CompareAndSwap(false, true) {
						return errors.New("lost")
					}
					return nil
				},
				ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
			}
			front := httptest.NewServer(proxy)
			defer front.Close()
			store := s.openAt(t, front.Listener.Addr().String())
			blob.RetryAtOnce(store)
			size := 100
			if name != "put" {
				size = 10 << 20
			}
			body := strings.Repeat("y", size)
			if _, err := store.PutIfAbsent(t.Context(), "aa/1", strings.NewReader(body)); err != nil {
				t.Fatal(err)
			}
			if !lost.Load() {
				t.Error("no answer was lost")
			}
			if got := read(t, store, "aa/1"); got != body {
				t.Errorf("%d bytes were stored", len(got))
			}
			if _, err := store.PutIfAbsent(t.Context(), "aa/1", strings.NewReader(body)); !fail.Is(err, api.AlreadyExists) {
				t.Errorf("again: %v", err)
			}
		})
	}
}

func (s service) testWrongCredentials(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hush")
	t.Setenv("AZURE_STORAGE_KEY", "aHVzaA==")
	_, err := blob.Open(t.Context(), s.url(s.addr, "x"))
	_, _, hint := fail.Public(err)
	if !fail.Is(err, api.Unavailable) || !strings.Contains(hint, "docs/object-storage.md") || strings.Contains(err.Error(), "hush") {
		t.Errorf("%v; %s", err, hint)
	}
}

// If the bucket is deleted, its blobs are not reported as missing.
func TestAMissingBucketIsAnErrorAndNotAnEmptyStore(t *testing.T) {
	server := s3test.Start(t)
	server.Setenv(t)
	s := service{server.Addr, server.URL}
	store := s.openAt(t, s.addr)
	blob.RetryAtOnce(store)
	if err := os.Rename(server.Objects, server.Objects+"-away"); err != nil {
		t.Fatal(err)
	}
	_, get := store.GetRange(t.Context(), "aa/1", 0, -1)
	_, stat := store.Stat(t.Context(), "aa/1")
	_, put := store.PutIfAbsent(t.Context(), "aa/1", strings.NewReader("x"))
	_, open := blob.Open(t.Context(), s.url(s.addr, "x"))
	for doing, err := range map[string]error{"get": get, "stat": stat, "put": put, "open": open} {
		if !fail.Is(err, api.Unavailable) {
			t.Errorf("%s: %v", doing, err)
		}
	}
}

func TestAModifiedObjectIsDamaged(t *testing.T) {
	server := s3test.Start(t)
	server.Setenv(t)
	s := service{server.Addr, server.URL}
	store := s.openAt(t, s.addr)
	if _, err := store.PutIfAbsent(t.Context(), "aa/1", strings.NewReader("first")); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(server.Objects, strings.ToLower(t.Name()), "aa/1"), os.O_WRONLY, 0) // its attributes stay
	if err == nil {
		_, err = file.WriteString("f1rst")
	}
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	r, err := store.GetRange(t.Context(), "aa/1", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if body, err := io.ReadAll(r); !fail.Is(err, api.Damaged) || !strings.Contains(err.Error(), "blob aa/1") {
		t.Errorf("%q, %v", body, err)
	}
}

func TestAStoreThatOverwritesObjectsIsRefused(t *testing.T) {
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			io.WriteString(w, `<ListBucketResult><Name>keyroll</Name><IsTruncated>false</IsTruncated></ListBucketResult>`)
		}
	}))
	defer front.Close()
	(&s3test.Server{Env: []string{"AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x"}}).Setenv(t)
	_, err := blob.Open(t.Context(), (&s3test.Server{}).URL(front.Listener.Addr().String(), ""))
	if !fail.Is(err, api.InvalidArgument) || !strings.Contains(err.Error(), "overwrites") {
		t.Error(err)
	}
}

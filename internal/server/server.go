// Package server offers the service over HTTP: the operations of package api under
// /v1, their OpenAPI document, and the two health endpoints.
//
// The table in route.go says which method of the service does an operation; paths,
// inputs and outputs come from the table in package api. Every failure under /v1 is a
// problem document (RFC 9457) made in problem.go. The package makes no decisions: it
// never unwraps a key and never checks a role itself. It never writes a name, a query
// value or a token to the log, and never returns a value that it refuses. Start
// reading at New.
package server

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
	"keyroll/internal/service"
)

// Config is what a handler needs.
type Config struct {
	Service *service.Service
	Auth    Authenticator
	Log     *slog.Logger
	// Ready reports whether operations are accepted: false while the process starts
	// and while it drains. It is called for each request.
	Ready func() bool
	// Health checks what all operations depend on. Only /readyz calls it, one call at a
	// time. Nil means no check.
	Health func(ctx context.Context) error
}

// Authenticator finds the principal of a bearer token; a token that is not
// valid fails Unauthenticated.
type Authenticator interface {
	Authenticate(ctx context.Context, bearer string) (access.Principal, error)
	// CheckTenant refuses a principal that is not of the named tenant.
	CheckTenant(ctx context.Context, p access.Principal, tenant string) error
}

type handler struct {
	Config
	// checkRole refuses an operation that the caller's role does not allow.
	checkRole func(context.Context, api.Meta) error
	mux       *http.ServeMux
	openAPI   []byte
	// operations has the table's operations by the pattern of their route.
	operations map[string]api.Meta
	health     singleflight.Group
}

// New returns the handler of the service API and of /openapi.json, /healthz
// and /readyz. Anything else is answered with a problem document, NotFound.
func New(c Config) http.Handler {
	return newHandler(c, c.Service.CheckRole, operations(c.Service))
}

func newHandler(c Config, checkRole func(context.Context, api.Meta) error, table []operation) http.Handler {
	h := &handler{Config: c, checkRole: checkRole, mux: http.NewServeMux(), operations: map[string]api.Meta{}}
	b := newBinding(h)
	for _, op := range table {
		op.register(b)
	}
	doc := b.document()
	var err error
	if h.openAPI, err = json.MarshalIndent(doc, "", "  "); err != nil {
		panic("server: the OpenAPI document does not encode: " + err.Error()) // the table is fixed
	}
	h.mux.HandleFunc("GET /openapi.json", h.serveOpenAPI)
	h.mux.HandleFunc("GET /healthz", healthy)
	h.mux.HandleFunc("GET /readyz", h.ready)
	h.mux.HandleFunc("/", h.notFound)
	return identify(h.log(h.recover(http.HandlerFunc(h.enter))))
}

// enter passes a request to its route: operations only with a token, and only while the
// process is ready.
func (h *handler) enter(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Frame-Options", "DENY")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cache-Control", "no-store")
	if p := r.URL.EscapedPath(); p != path.Clean(p) {
		h.notFound(w, r) // the mux would answer with a redirect
		return
	}
	if strings.HasPrefix(r.URL.Path, "/v1/") {
		ctx, err := h.authenticate(w, r)
		if err == nil && !h.Ready() {
			err = fail.New(api.Unavailable, "keyroll is starting or stopping").WithHint("try again in a moment")
		}
		if err != nil {
			h.refuse(w, r, err)
			return
		}
		r = r.WithContext(ctx)
	}
	h.mux.ServeHTTP(w, r)
}

// notFound answers 405 if the path has operations with other methods, else 404.
func (h *handler) notFound(w http.ResponseWriter, r *http.Request) {
	if allowed := h.allowed(r); allowed != nil {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		h.refuse(w, r, fail.New(api.MethodNotAllowed, "the path has no operation %.20s", method(r)).WithHint("it has %s", strings.Join(allowed, ", ")))
		return
	}
	h.refuse(w, r, fail.New(api.NotFound, "no such operation").
		WithHint("/openapi.json lists all operations with their methods and paths"))
}

// allowed returns the methods of the operations on a request's path.
func (h *handler) allowed(r *http.Request) (methods []string) {
	if r.URL.EscapedPath() != path.Clean(r.URL.EscapedPath()) {
		return nil
	}
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := h.mux.Handler(other); pattern != "/" && pattern != "" {
			methods = append(methods, m)
		}
	}
	return methods
}

func (h *handler) serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = bytes.NewReader(h.openAPI).WriteTo(w)
}

// healthy answers that the process is running.
func healthy(w http.ResponseWriter, r *http.Request) { state(w, http.StatusOK, "ok\n") }

// ready answers 200 while operations are accepted and the database is available, else
// 503.
func (h *handler) ready(w http.ResponseWriter, r *http.Request) {
	switch {
	case !h.Ready():
		state(w, http.StatusServiceUnavailable, "starting or stopping\n")
	case !h.checkHealth(r.Context()):
		state(w, http.StatusServiceUnavailable, "the database does not respond\n")
	default:
		state(w, http.StatusOK, "ready\n")
	}
}

// healthTimeout bounds how long /readyz waits for Health.
const healthTimeout = 2 * time.Second

// checkHealth reports the result of Health. Concurrent requests share one call, because
// /readyz needs no token.
func (h *handler) checkHealth(ctx context.Context) bool {
	if h.Health == nil {
		return true
	}
	_, err, _ := h.health.Do("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthTimeout)
		defer cancel()
		return nil, h.Health(ctx)
	})
	return err == nil
}

func state(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", unavailableRetryAfter)
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

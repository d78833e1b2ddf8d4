package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/admit"
	"keyroll/internal/audit"
	"keyroll/internal/fail"
	"keyroll/internal/httpcheck"
)

// request is what the layers of handlers share about one request.
type request struct {
	id        string
	route     string // pattern of the route, empty without one
	principal string
}

type requestKey struct{}

// requestOf returns the request that ctx belongs to; identify put it there.
func requestOf(ctx context.Context) *request {
	req, _ := ctx.Value(requestKey{}).(*request)
	if req == nil {
		return &request{}
	}
	return req
}

// identify assigns an id to each request, for the log, the audit log and the caller.
func identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := &request{id: uuid.NewString()}
		w.Header().Set("X-Request-Id", req.id)
		ctx := context.WithValue(r.Context(), requestKey{}, req)
		ctx = audit.WithOrigin(ctx, audit.Origin{Request: req.id})
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// response records the status and the size of the response.
type response struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// log writes one line per request, which contains nothing that could identify a person,
// a container or content.
func (h *handler) log(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, res, req := time.Now(), &response{ResponseWriter: w}, requestOf(r.Context())
		complete := false
		defer func() {
			level := slog.LevelInfo
			if !strings.HasPrefix(r.URL.Path, "/v1/") {
				level = slog.LevelDebug
			}
			h.Log.LogAttrs(context.WithoutCancel(r.Context()), level, "request",
				slog.String("request", req.id), slog.String("principal", req.principal),
				slog.String("method", method(r)), slog.String("route", req.route),
				slog.Int("status", res.status), slog.Int64("bytes", res.bytes),
				slog.Bool("complete", complete), slog.Duration("duration", time.Since(began)))
		}()
		next.ServeHTTP(res, r)
		complete = true
	})
}

// method returns the request's method if it is a known one, else "other".
func method(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return r.Method
	}
	return "other"
}

// recover answers a panic with an internal problem, or cuts the connection if a part of
// the response has been sent. It logs the stack and the type of the panic's value,
// never a value.
func (h *handler) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler {
				panic(v)
			}
			h.Log.LogAttrs(r.Context(), slog.LevelError, "panic",
				slog.String("request", requestOf(r.Context()).id), slog.String("type", fmt.Sprintf("%T", v)), slog.Any("stack", stack()))
			if res, ok := w.(*response); ok && res.status != 0 {
				panic(http.ErrAbortHandler)
			}
			writeProblem(w, problemOf(r.Context(), fail.New(api.Internal, "panic")))
		}()
		next.ServeHTTP(w, r)
	})
}

// stack returns the functions and lines of the panic. debug.Stack would also print
// words of the arguments, and an argument may be a key.
func stack() []string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	var lines []string
	for {
		f, more := frames.Next()
		lines = append(lines, fmt.Sprintf("%s %s:%d", f.Function, f.File, f.Line))
		if !more {
			return lines
		}
	}
}

// authenticate returns r's context with the principal of its bearer token
// (RFC 6750, section 2.1).
func (h *handler) authenticate(w http.ResponseWriter, r *http.Request) (context.Context, error) {
	token := httpcheck.Bearer(r)
	if token == "" {
		w.Header().Set("WWW-Authenticate", "Bearer")
		return nil, fail.New(api.Unauthenticated, "the request has no bearer token").
			WithHint("send the header Authorization: Bearer TOKEN")
	}
	p, err := h.Auth.Authenticate(r.Context(), token)
	if err != nil {
		if fail.Is(err, api.Unauthenticated) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		}
		return nil, err
	}
	if named := r.Header.Get(api.TenantHeader); named != "" {
		tenant, err := url.PathUnescape(named)
		if err != nil {
			return nil, fail.New(api.InvalidArgument, "the header %s is not percent-encoded", api.TenantHeader)
		}
		if err := h.Auth.CheckTenant(r.Context(), p, tenant); err != nil {
			return nil, err
		}
	}
	requestOf(r.Context()).principal = p.ID.String()
	return access.WithPrincipal(r.Context(), p), admit.Authenticated(r.Context(), p.Tenant)
}

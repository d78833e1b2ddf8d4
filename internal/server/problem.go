package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"keyroll/api"
	"keyroll/internal/fail"
)

// problem is an api.Problem that implements huma.StatusError.
type problem api.Problem

func (p *problem) Error() string             { return p.Detail }
func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

// problemOf returns the part of err that the caller of the request in ctx may see.
func problemOf(ctx context.Context, err error) *problem {
	code, detail, hint := fail.Public(err)
	status := fail.Lookup(code).Status
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status,
		Detail: detail, Code: code, Hint: hint, Request: requestOf(ctx).id}
}

// reportFailure logs the cause of a server error, and returns the problem for the caller.
func (h *handler) reportFailure(ctx context.Context, err error) *problem {
	p := problemOf(ctx, err)
	level := slog.LevelError
	if fail.Abandoned(ctx, err) {
		level = slog.LevelInfo
	}
	if p.Status >= http.StatusInternalServerError {
		req := requestOf(ctx)
		h.Log.LogAttrs(context.WithoutCancel(ctx), level, "request failed", slog.String("request", req.id),
			slog.String("route", req.route), slog.String("code", string(p.Code)), slog.String("cause", cause(err)))
	}
	return p
}

// cause returns the text of err for the log. The detail for the caller may name a
// container; the wrapped error does not.
func cause(err error) string {
	var e *fail.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	if e.Err != nil {
		return e.Err.Error()
	}
	if e.Code == api.Internal {
		return e.Detail
	}
	return ""
}

// refuse answers a request with the problem of err.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	writeProblem(w, h.reportFailure(r.Context(), err))
}

// unavailableRetryAfter is Retry-After for something that is unavailable, in seconds.
const unavailableRetryAfter = "5"

// busyRetryAfter is Retry-After for a server that is too busy, in seconds.
const busyRetryAfter = "1"

func writeProblem(w http.ResponseWriter, p *problem) {
	w.Header().Del("Content-Length")
	w.Header().Set("Content-Type", problemType)
	switch p.Status {
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", unavailableRetryAfter)
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", busyRetryAfter)
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode((*api.Problem)(p)) // the caller may have disconnected
}

// huma's own responses to bad input would show the offending value, which may be a
// secret, so they are made here from location and reason only.
func init() {
	huma.DefaultArrayNullable = false // lists are never null, see route.go
	huma.ValidateStrictCasing = true
	huma.NewError = func(status int, text string, errs ...error) huma.StatusError {
		return badRequest(context.Background(), status, text, errs)
	}
	huma.NewErrorWithContext = func(c huma.Context, status int, text string, errs ...error) huma.StatusError {
		return badRequest(c.Context(), status, text, errs)
	}
}

// badRequest returns the problem for input that huma refuses before an operation runs.
// The texts are fixed in huma's source; only the location may contain input of the
// caller.
func badRequest(ctx context.Context, status int, text string, errs []error) *problem {
	if status == http.StatusUnsupportedMediaType {
		return problemOf(ctx, fail.New(api.UnsupportedMediaType, "the body is not of type application/json"))
	}
	if status >= http.StatusInternalServerError {
		return problemOf(ctx, errors.New(text))
	}
	const most = 5
	var reasons []string
	for i, err := range errs {
		if i == most {
			reasons = append(reasons, fmt.Sprintf("and %d more", len(errs)-most))
			break
		}
		var d *huma.ErrorDetail
		if errors.As(err, &d) {
			reasons = append(reasons, location(d.Location)+": "+d.Message)
		}
	}
	if len(reasons) > 0 {
		text = strings.Join(reasons, "; ")
	}
	return problemOf(ctx, fail.New(api.InvalidArgument, "%s", text))
}

// location formats the location of a member or parameter for a message: shortened, and
// quoted if it has characters that are not printable.
func location(s string) string {
	const longest = 80
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "…"
	}
	if quoted := strconv.QuoteToGraphic(s); quoted != `"`+s+`"` {
		return quoted
	}
	return s
}

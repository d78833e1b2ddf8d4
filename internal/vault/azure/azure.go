// Package azure has what the REST interfaces of Azure prescribe for any service behind
// them: the form of errors, bodies and paths, the ids of requests, the limits of a key
// vault, and the geographies of regions. It knows no vault and no key. Start reading at
// Refuse.
package azure

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

// refusal is a fail.Error with the error codes of Azure's REST interface for it, which
// are more precise than those in the table of package fail.
type refusal struct {
	err   *fail.Error
	azure string // error code
	inner string // code of the inner error; empty: there is none
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// Refuse returns a refusal with the error codes of Azure; inner is empty if there is none.
func Refuse(code api.Code, azure, inner, format string, args ...any) error {
	return &refusal{fail.New(code, format, args...), azure, inner}
}

// Invalid returns the refusal of input that no state of a vault would accept.
func Invalid(format string, args ...any) *fail.Error {
	return fail.New(api.InvalidArgument, format, args...)
}

// restError is the body of every refusal (Azure REST API guidelines).
type restError struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Inner   *inner `json:"innererror,omitempty"`
	} `json:"error"`
}

type inner struct {
	Code string `json:"code"`
}

// WriteError writes err as the answer; the cause of an internal error is left out.
func WriteError(w http.ResponseWriter, err error) {
	code, message, hint := fail.Public(err)
	if hint != "" {
		message += " (" + hint + ")"
	}
	row := fail.Lookup(code)
	var body restError
	body.Error.Code, body.Error.Message = row.Azure, message
	var r *refusal
	if errors.As(err, &r) {
		body.Error.Code = r.azure
		if r.inner != "" {
			body.Error.Inner = &inner{r.inner}
		}
	}
	if wait := fail.RetryAfter(err); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	WriteJSON(w, row.Status, body)
}

// Outcome returns the result of an operation for the log.
func Outcome(err error) string {
	var r *refusal
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &r) && r.inner != "":
		return r.inner
	case r != nil:
		return r.azure
	}
	return string(fail.CodeOf(err))
}

// WriteJSON writes an answer.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// NotAllowed refuses a method on a path that has others (RFC 9110 section 15.5.6).
func NotAllowed(w http.ResponseWriter, method string, allowed []string) error {
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return fail.New(api.MethodNotAllowed, "this path has no operation %.20s", method).WithHint("it has %s", strings.Join(allowed, ", "))
}

package vault

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"

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

func refuse(code api.Code, azure, inner, format string, args ...any) error {
	return &refusal{fail.New(code, format, args...), azure, inner}
}

// invalid returns the refusal of input that no state of a vault would accept.
func invalid(format string, args ...any) *fail.Error {
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

// writeError writes err as the answer; the cause of an internal error is left out.
func writeError(w http.ResponseWriter, err error) {
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
	writeJSON(w, row.Status, body)
}

// outcome returns the result of an operation for the log.
func outcome(err error) string {
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

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

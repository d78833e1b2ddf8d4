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

// refusal is a fail.Error together with the words of Azure's REST error for
// it, where those say more than the table of fail.
type refusal struct {
	err   *fail.Error
	azure string // error code
	inner string // code of the inner error, or nothing
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(code api.Code, azure, inner, format string, args ...any) error {
	return &refusal{fail.New(code, format, args...), azure, inner}
}

// bad is input that no state of a vault would accept.
func bad(format string, args ...any) *fail.Error {
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

// writeError answers with err; the cause of an internal error stays out of it.
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

// outcome names how an operation ended, for the log.
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

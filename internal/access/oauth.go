package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"keyroll/internal/fail"
)

// aadsts is the number of an error in the documentation of Entra's token service, which
// client libraries and administrators recognise.
type aadsts int

const (
	tokenIssuance      aadsts = 50000
	unknownInstance    aadsts = 50049
	unsupportedGrant   aadsts = 70003
	invalidScope       aadsts = 70011
	unknownTenant      aadsts = 90002
	unknownResource    aadsts = 500011
	unknownApplication aadsts = 700016
	missingField       aadsts = 900144
	wrongSecret        aadsts = 7000215
	expiredSecret      aadsts = 7000222
	malformedRequest   aadsts = 9002313
)

// oauthError is an error response (RFC 6749, 5.2).
type oauthError struct {
	status      int
	code        string
	number      aadsts
	description string
}

func (e *oauthError) Error() string { return e.description }

func invalid(status int, code string, number aadsts, description string) *oauthError {
	return &oauthError{status, code, number, description}
}

// missing is the error of a request without a field that it must have.
func missing(status int, code, field string) *oauthError {
	return invalid(status, code, missingField, fmt.Sprintf("the request must contain the parameter %q", field))
}

// errorAnswer is an oauthError in the form that Entra gives it.
type errorAnswer struct {
	Code        string    `json:"error"`
	Description string    `json:"error_description"`
	Numbers     []aadsts  `json:"error_codes"`
	Timestamp   string    `json:"timestamp"`
	Trace       uuid.UUID `json:"trace_id"`
	Correlation uuid.UUID `json:"correlation_id"`
}

// refuse answers a request with an error. The error of a failure of keyroll is not shown
// but logged with the trace id of the answer.
func (d *Directory) refuse(w http.ResponseWriter, r *http.Request, err error) {
	trace := uuid.New()
	var e *oauthError
	if !errors.As(err, &e) {
		if !fail.Abandoned(r.Context(), err) {
			d.log.Error("token endpoint failed", "error", err, "trace", trace)
		}
		e = invalid(http.StatusInternalServerError, "server_error", tokenIssuance, "keyroll failed to issue a token")
	}
	correlation, errID := uuid.Parse(r.Header.Get("client-request-id"))
	if errID != nil {
		correlation = uuid.New()
	}
	at := d.now().UTC().Format("2006-01-02 15:04:05Z")
	writeJSON(w, e.status, errorAnswer{
		Code: e.code,
		Description: fmt.Sprintf("AADSTS%d: %s\r\nTrace ID: %s\r\nCorrelation ID: %s\r\nTimestamp: %s",
			e.number, e.description, trace, correlation, at),
		Numbers: []aadsts{e.number}, Timestamp: at, Trace: trace, Correlation: correlation,
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

package vaults

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"keyroll/api"
	"keyroll/internal/fail"
)

// codes maps HTTP statuses to codes; any other status is VaultUnavailable.
var codes = map[int]api.Code{
	http.StatusBadRequest:            api.InvalidArgument,
	http.StatusUnprocessableEntity:   api.InvalidArgument,
	http.StatusUnauthorized:          api.Unauthenticated,
	http.StatusForbidden:             api.Forbidden,
	http.StatusNotFound:              api.NotFound,
	http.StatusConflict:              api.Conflict,
	http.StatusRequestEntityTooLarge: api.TooLarge,
}

// convertError turns an error of the Azure client into one of keyroll's. Its text is
// the message of the vault or, without one, what was requested and the HTTP status.
func convertError(what string, err error) error {
	var known *fail.Error
	if errors.As(err, &known) {
		return err
	}
	var response *azcore.ResponseError
	if !errors.As(err, &response) {
		return notReached(what, err)
	}
	code, ok := codes[response.StatusCode]
	if !ok {
		code = api.VaultUnavailable
	}
	if response.ErrorCode == "VaultAlreadyExists" {
		code = api.AlreadyExists
	}
	if message := messageOf(response.RawResponse); message != "" {
		return fail.New(code, "%s", message).Because(err)
	}
	reason := http.StatusText(response.StatusCode)
	if reason == "" {
		reason = "the response is not one of a key vault"
	}
	return fail.New(code, "%s: %s", what, reason).Because(err)
}

// messageOf returns the message in the body of Azure's REST error.
func messageOf(response *http.Response) string {
	if response == nil || response.Body == nil {
		return ""
	}
	raw, err := runtime.Payload(response)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	var body struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(raw, &body) != nil {
		return ""
	}
	if runes := []rune(body.Error.Message); len(runes) > 1000 {
		return string(runes[:1000]) + "…"
	}
	return body.Error.Message
}

// notReached returns the error for a missing response, without the URL, because what
// names the vault already.
func notReached(what string, err error) error {
	var outer *url.Error
	cause := err
	if errors.As(err, &outer) {
		cause = outer.Err
	}
	reason := cause.Error()
	var network net.Error
	if errors.As(err, &network) && network.Timeout() {
		reason = "it did not answer in time"
	}
	return fail.New(api.VaultUnavailable, "%s: cannot be reached: %s", what, reason).Because(err)
}

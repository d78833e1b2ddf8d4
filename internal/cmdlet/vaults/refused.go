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

// codes of answers by their HTTP status; what is missing is VaultUnavailable.
var codes = map[int]api.Code{
	http.StatusBadRequest:            api.InvalidArgument,
	http.StatusUnprocessableEntity:   api.InvalidArgument,
	http.StatusUnauthorized:          api.Unauthenticated,
	http.StatusForbidden:             api.Forbidden,
	http.StatusNotFound:              api.NotFound,
	http.StatusConflict:              api.Conflict,
	http.StatusRequestEntityTooLarge: api.TooLarge,
}

// refused turns an error of the Azure client into one of keyroll's. What the
// vault says of it is the text; where it says nothing, what was asked for is named.
func refused(what string, err error) error {
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
		reason = "the answer is not one of a key vault"
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

// notReached says why no answer came, without the URL, which the text names already.
func notReached(what string, err error) error {
	var outer *url.Error
	cause := err
	if errors.As(err, &outer) {
		cause = outer.Err
	}
	reason := cause.Error()
	var network net.Error
	if errors.As(err, &network) && network.Timeout() {
		reason = "no answer in time"
	}
	return fail.New(api.VaultUnavailable, "%s: not reached: %s", what, reason).Because(err)
}

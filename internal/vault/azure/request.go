package azure

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/httpcheck"
)

// Decode reads a body that is one JSON object. As in Azure, unknown members are
// ignored.
func Decode(body io.Reader, into any) error { return decodeWith(body, into, func(*json.Decoder) {}) }

// DecodeKnown is Decode that refuses unknown members, as Azure's management of vaults
// does.
func DecodeKnown(body io.Reader, into any) error {
	return decodeWith(body, into, (*json.Decoder).DisallowUnknownFields)
}

func decodeWith(body io.Reader, into any, set func(*json.Decoder)) error {
	data, err := io.ReadAll(body)
	if err == nil {
		if err := httpcheck.CheckJSON(data); err != nil {
			return err
		}
		decoder := json.NewDecoder(bytes.NewReader(data))
		set(decoder)
		err = decoder.Decode(into)
		if err == nil {
			if _, err = decoder.Token(); err == io.EOF {
				return nil
			} else if err == nil {
				err = errors.New("more than one value")
			}
		}
	}
	var tooLarge *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &tooLarge):
		return fail.New(api.TooLarge, "the body has more than %d bytes", tooLarge.Limit)
	case err == io.EOF:
		return Invalid("the body is empty")
	case errors.As(err, &wrongType):
		return Invalid("property %q is of the wrong type: a JSON %s", wrongType.Field, wrongType.Value)
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return Invalid("property %.64s is not supported", field)
	}
	return Invalid("the body is not a single JSON object").Because(err)
}

// DecodeBytes reads base64url with or without padding (RFC 7515, 2).
func DecodeBytes(property, text string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, Invalid("property %q is not base64url", property)
	}
	return b, nil
}

// maxClientID bounds a client's own id of a request.
const maxClientID = 128

// RequestID makes an id for a request and returns it to the client, together with the
// client's own id if the client requests that (Azure REST API guidelines).
func RequestID(w http.ResponseWriter, r *http.Request) string {
	id := uuid.NewString()
	client := r.Header.Get("X-Ms-Client-Request-Id")
	if client != "" && len(client) <= maxClientID && strings.EqualFold(r.Header.Get("X-Ms-Return-Client-Request-Id"), "true") {
		w.Header().Set("X-Ms-Client-Request-Id", client)
	}
	w.Header().Set("X-Ms-Request-Id", id)
	w.Header().Set("Cache-Control", "no-store")
	return id
}

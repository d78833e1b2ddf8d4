// Package httpcheck has the checks of an HTTP request that the service and the
// vaults make alike: its bearer token, its content coding, and its JSON.
package httpcheck

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

// Bearer returns a request's bearer token, empty if it has none. The scheme is
// taken in any case (RFC 9110 section 11.1).
func Bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// CheckCoding refuses a body in a content coding (RFC 9110 section 8.4): none is
// decoded, and stored as it came the content would be another one.
func CheckCoding(r *http.Request) error {
	for _, header := range r.Header.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(header, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				return fail.New(api.UnsupportedMediaType, "the body has the content coding %.20q, which is not decoded here", coding).
					WithHint("send the content as it is, without the header Content-Encoding")
			}
		}
	}
	return nil
}

// maxDepth bounds how deep a JSON text is nested.
const maxDepth = 100

// CheckMembers refuses JSON with an object that has two members of one name, case
// aside (RFC 8259 section 4: what a reader makes of that is unpredictable). What
// is no JSON it leaves to the decoder.
func CheckMembers(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	type object struct {
		names map[string]bool // nil of an array
		value bool            // the next token is a member's value
	}
	var open []object
	for {
		token, err := decoder.Token()
		if err != nil {
			return nil
		}
		top := len(open) - 1
		if name, ok := token.(string); ok && top >= 0 && open[top].names != nil && !open[top].value {
			folded := strings.ToLower(name)
			if open[top].names[folded] {
				return fail.New(api.InvalidArgument, "the body has a JSON object with two members of the same name")
			}
			open[top].names[folded], open[top].value = true, true
			continue
		}
		if top >= 0 {
			open[top].value = false
		}
		switch token {
		case json.Delim('{'):
			open = append(open, object{names: map[string]bool{}})
		case json.Delim('['):
			open = append(open, object{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:top]
			if len(open) > 0 {
				open[len(open)-1].value = false
			}
		}
		if len(open) > maxDepth {
			return fail.New(api.InvalidArgument, "the body is JSON that is nested more than %d deep", maxDepth)
		}
	}
}

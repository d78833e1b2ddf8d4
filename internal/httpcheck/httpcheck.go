// Package httpcheck has the checks of an HTTP request that are common to the service and
// the vaults: its bearer token, its content coding, and its JSON.
package httpcheck

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"keyroll/api"
	"keyroll/internal/fail"
	names "keyroll/internal/name"
)

// Bearer returns a request's bearer token, empty if it has none. The case of the scheme
// is ignored (RFC 9110 section 11.1).
func Bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// CheckCoding refuses a body in a content coding (RFC 9110 section 8.4): none is decoded,
// so the stored content would be wrong.
func CheckCoding(r *http.Request) error {
	for _, header := range r.Header.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(header, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				return fail.New(api.UnsupportedMediaType, "the body has the content coding %.20q, which is not supported", coding).
					WithHint("send the content as it is, without the header Content-Encoding")
			}
		}
	}
	return nil
}

// maxDepth bounds how deep a JSON text may be nested.
const maxDepth = 100

// CheckJSON refuses JSON that parsers interpret in different ways: an object with two
// members of the same name, ignoring case (RFC 8259 section 4), and invalid text
// (sections 8.1 and 8.2), which the decoder would replace by the same character each
// time, so that two names could become equal. Invalid JSON is left to the decoder.
func CheckJSON(data []byte) error {
	if !utf8.Valid(data) {
		return fail.New(api.InvalidArgument, "the body is not UTF-8")
	}
	if hasLoneSurrogate(data) {
		return fail.New(api.InvalidArgument, "the body has an escape \\u that is one half of a character")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	type object struct {
		names map[string]bool // nil for an array
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
			folded := names.Fold(name)
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

// hasLoneSurrogate reports whether an escape in JSON is a surrogate without the
// other one of its pair.
func hasLoneSurrogate(data []byte) bool {
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		first := escaped(data[i:])
		switch {
		case first < 0:
			i++ // the escaped character
		case !utf16.IsSurrogate(first):
			i += 5
		case utf16.DecodeRune(first, escaped(data[min(i+6, len(data)):])) == unicode.ReplacementChar:
			return true
		default:
			i += 11
		}
	}
	return false
}

// escaped returns the code unit of the escape \uXXXX that data begins with, or -1.
func escaped(data []byte) rune {
	if len(data) < 6 || data[0] != '\\' || data[1] != 'u' {
		return -1
	}
	unit, err := strconv.ParseUint(string(data[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(unit)
}

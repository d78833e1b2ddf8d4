package httpcheck_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/httpcheck"
)

func TestBearerSchemeIsAcceptedInAnyCase(t *testing.T) {
	for header, want := range map[string]string{"Bearer t": "t", "bearer t": "t", "BEARER  t ": "t", "Basic t": "", "": "", "Bearer": "", "Bearert": ""} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", header)
		if got := httpcheck.Bearer(r); got != want {
			t.Errorf("%q: %q", header, got)
		}
	}
}

func TestContentCodingIsRefused(t *testing.T) {
	for coding, refused := range map[string]bool{"": false, "identity": false, "Identity": false, "gzip": true, "identity, br": true, "zstd": true} {
		r := httptest.NewRequest("PUT", "/", nil)
		r.Header.Set("Content-Encoding", coding)
		if err := httpcheck.CheckCoding(r); refused != fail.Is(err, api.UnsupportedMediaType) || !refused && err != nil {
			t.Errorf("%q: %v", coding, err)
		}
	}
}

var texts = map[string]bool{
	`{"size":1,"\u017fize":2}`: true, // a long s is an s in another case
	"{\"a\":\"r\xe9sum\xe9\"}": true, `{"a":"\ud800"}`: true, `{"a":"\udc00\ud800"}`: true, `{"a":"\ud83d x"}`: true,
	`{"a":"\ud83d\ude00"}`: false, `{"a":"\\ud800"}`: false, `{"a":"\\\ud800"}`: true, `{"a":"\ufffd"}`: false, `{"a":"\u`: false,
	`{"a":1,"a":2}`: true, `{"a":1,"A":2}`: true, `[{"b":{"a":[],"a":{}}}]`: true, `{"a":{"x":1},"b":[1,2],"a":"b"}`: true, "{\"a\":1,\"\\u0061\":2}": true,
	`{}`: false, `[]`: false, `"a"`: false, `{"a":"a","b":"a","c":["a","a"]}`: false, `{"a":{"a":{"a":null}}}`: false, `{"a":1`: false, ``: false, `{"a":1}{"a":1}`: false,
}

func TestAmbiguousJSONIsRefused(t *testing.T) {
	for text, refused := range texts {
		if err := httpcheck.CheckJSON([]byte(text)); refused != fail.Is(err, api.InvalidArgument) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What passes has every member in the value that a reader makes of it.
func FuzzCheckJSON(f *testing.F) {
	for text := range texts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v map[string]json.RawMessage
		if httpcheck.CheckJSON(data) != nil || json.Unmarshal(data, &v) != nil {
			return
		}
		folded := map[string]bool{}
		for name := range v {
			folded[strings.ToLower(name)] = true
		}
		if len(folded) != len(v) {
			t.Errorf("%q", data)
		}
	})
}

package server_test

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/audit"
)

// fill sets each member to a different value, so that lost or swapped members are
// detected.
func fill(v reflect.Value, n *int64) {
	*n++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(1_700_000_000+*n, 123_000_000).UTC()))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
			if enum := v.Type().Field(i).Tag.Get("enum"); enum != "" {
				v.Field(i).SetString(enum[strings.LastIndex(enum, ",")+1:])
			}
		}
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case v.Kind() == reflect.String:
		v.SetString("väl/ue ?&=#%+<>\"" + strings.Repeat("x", int(*n)))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(*n)
	case v.CanUint():
		v.SetUint(uint64(*n))
	case v.CanFloat():
		v.SetFloat(float64(*n) + .5)
	default:
		panic(v.Type().String())
	}
}

func filled(t reflect.Type) reflect.Value {
	v, n := reflect.New(t).Elem(), int64(0)
	fill(v, &n)
	return v
}

// Each operation of the table calls the method of its name with its complete input, and
// the client's method of its name returns the complete output.
func TestEveryOperationIsServedUnderItsName(t *testing.T) {
	const sent, written = "content of the request", "content of the answer"
	w := newTestServer(t, true)
	for _, m := range api.Operations() {
		t.Run(m.Name, func(t *testing.T) {
			method := reflect.ValueOf(w.client).MethodByName(m.Name)
			if !method.IsValid() {
				t.Fatal("the client has no such method")
			}
			var got string
			w.service.read = func(_ context.Context, size int64, r io.Reader) error {
				data, err := io.ReadAll(r)
				if got = string(data); size != int64(len(sent)) {
					t.Errorf("size %d", size)
				}
				return err
			}
			w.service.write = func(_ context.Context, off, n int64, w io.Writer) error {
				_, err := io.WriteString(w, written)
				return err
			}
			out := m.Out
			switch m.Name {
			case api.Verify.Name:
				out = reflect.TypeFor[api.Verified]()
			case api.CollectBlobs.Name:
				out = reflect.TypeFor[api.CollectedBlobs]()
			}
			want := filled(out).Interface()
			w.service.answer = func(_ context.Context, name string, _ any) (any, error) {
				if name == api.GetFile.Name {
					return api.File{Bytes: int64(len(written))}, nil
				}
				return want, nil
			}
			in := filled(m.In)
			args := []reflect.Value{reflect.ValueOf(background), in}
			switch {
			case m.Sends == api.Bytes:
				args = append(args, reflect.ValueOf(int64(len(sent))), reflect.ValueOf(strings.NewReader(sent)))
			case m.Name == api.GetFile.Name:
				args = append(args, reflect.ValueOf(int64(0)), reflect.ValueOf(int64(-1)))
			case m.Name == api.Verify.Name:
				args = append(args, reflect.ValueOf(func(api.VerifyProgress) {}))
			case m.Name == api.CollectBlobs.Name:
				args = append(args, reflect.ValueOf(func(api.CollectedBlobs) {}))
			}
			results := method.Call(args)
			if err, _ := results[1].Interface().(error); err != nil {
				t.Fatal(err)
			}
			if name, arrived := w.service.lastCall(); name != m.Name || !reflect.DeepEqual(arrived, in.Interface()) {
				t.Errorf("%s got\n%+v, sent was\n%+v", name, arrived, in.Interface())
			}
			if m.Sends == api.Bytes && got != sent {
				t.Errorf("content arrived as %q", got)
			}
			if m.Returns == api.Bytes {
				if data, err := io.ReadAll(results[0].Interface().(io.Reader)); string(data) != written || err != nil {
					t.Errorf("content came back as %q, %v", data, err)
				}
			} else if !reflect.DeepEqual(results[0].Interface(), want) {
				t.Errorf("came back:\n%+v, was:\n%+v", results[0].Interface(), want)
			}
		})
	}
}

func TestNothingElseIsServed(t *testing.T) {
	w := newTestServer(t, true)
	w.service.answer = func(_ context.Context, name string, _ any) (any, error) {
		t.Errorf("%s was reached", name)
		return nil, nil
	}
	// The routes allow a policy that is named sites.
	table := map[string]bool{"GET /v1/policies/sites": true, "PATCH /v1/policies/sites": true}
	paths := map[string]bool{"/v1/": true, "/v1": true, "/": true, "/docs": true, "/schemas/Problem.json": true, "/openapi.yaml": true,
		"/openapi-3.0.json": true, "/v1/mailboxes/": true, "/v1//policies": true, "/v1/x/../policies": true, "/v2/policies": true, "/v1/policies/p/refresh/": true}
	for _, m := range api.Operations() {
		table[m.Method+" "+m.Path] = true
		paths[m.Path] = true
	}
	parameter := regexp.MustCompile(`\{\w+\}`)
	for path := range paths {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "INVENTED"} {
			if table[method+" "+path] {
				continue
			}
			resp, body := w.raw(method, parameter.ReplaceAllString(path, "x"), "")
			var allowed []string
			for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
				if table[m+" "+path] {
					allowed = append(allowed, m)
				}
			}
			want := http.StatusNotFound
			if allowed != nil {
				want = http.StatusMethodNotAllowed
			}
			if allow := resp.Header.Get("Allow"); resp.StatusCode != want || allow != strings.Join(allowed, ", ") {
				t.Errorf("%s %s: %s, Allow %q", method, path, resp.Status, allow)
			} else if method != "HEAD" {
				problemIn(t, resp, body)
			}
		}
	}
}

func TestClientHasNoOtherMethods(t *testing.T) {
	names := map[string]bool{"Close": true}
	for _, m := range api.Operations() {
		names[m.Name] = true
	}
	c := reflect.TypeFor[*client.Client]()
	for i := range c.NumMethod() {
		if !names[c.Method(i).Name] {
			t.Errorf("method %s is no operation", c.Method(i).Name)
		}
	}
}

var update = flag.Bool("update", false, "write testdata/openapi.json")

func TestOpenAPIDocumentIsTheGoldenOne(t *testing.T) {
	const golden = "testdata/openapi.json"
	w := newTestServer(t, false)
	resp, body := w.raw("GET", "/openapi.json", "", "Authorization", "")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	if *update {
		if err := os.WriteFile(golden, []byte(body+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if body+"\n" != string(want) {
		t.Errorf("the document differs from %s: look at the change of the contract, then run go test ./internal/server -update", golden)
	}
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Responses   map[string]json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	described := 0
	for _, m := range api.Operations() {
		op := doc.Paths[m.Path][strings.ToLower(m.Method)]
		if op.OperationID != m.Name || op.Responses["200"] == nil || op.Responses["default"] == nil {
			t.Errorf("%s is described as %q with %d answers", m.Name, op.OperationID, len(op.Responses))
		}
	}
	for _, methods := range doc.Paths {
		described += len(methods)
	}
	if described != len(api.Operations()) || doc.OpenAPI != "3.1.0" {
		t.Errorf("OpenAPI %s describes %d operations of %d", doc.OpenAPI, described, len(api.Operations()))
	}
	if strings.Contains(body, "$schema") || strings.Contains(body, "127.0.0.1") {
		t.Error("the document holds $schema or the request's host")
	}
}

func TestNamesArriveUnchanged(t *testing.T) {
	names := []string{"alice+x/y@contoso.com", "..", ".", "a/../b", "//", "%2F", "a b", " a ", "ä\u0301", "a;b,c=d&e?f#g", "sites", "日本", "\x00\x7f", "%"}
	both(t, func(t *testing.T, w *testServer) {
		for _, name := range names {
			if _, err := w.client.ShowMailbox(background, api.MailboxInput{Mailbox: name}); err != nil {
				t.Errorf("%q: %v", name, err)
			}
			if call, in := w.service.lastCall(); call != "ShowMailbox" || in.(api.MailboxInput).Mailbox != name {
				t.Errorf("%q arrived at %s as %q", name, call, in)
			}
			body := api.AssignMailboxInput{MailboxInput: api.MailboxInput{Mailbox: name}}
			body.Body.Policy = strings.ToValidUTF8(name, "")
			if _, err := w.client.AssignMailbox(background, body); err != nil {
				t.Errorf("%q: %v", name, err)
			}
			if _, in := w.service.lastCall(); in != body {
				t.Errorf("%+v arrived as %+v", body, in)
			}
		}
		for _, site := range append(names, "https://contoso.sharepoint.com:8443/sites/a b?x=1&y=2#z", "https://höst/%20+", "HTTPS://A/") {
			in := api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: "dir/" + site}
			if _, err := w.client.PutFile(background, in, 0, strings.NewReader("")); err != nil {
				t.Errorf("%q: %v", site, err)
			}
			if _, got := w.service.lastCall(); got != in {
				t.Errorf("%q arrived as %q", in, got)
			}
		}
		if _, err := w.client.ShowMailbox(background, api.MailboxInput{}); problem(t, err).Code != api.InvalidArgument {
			t.Errorf("an empty name: %v", err)
		}
		if _, err := w.client.ShowSite(background, api.SiteInput{}); problem(t, err).Detail != "query.site: required query parameter is missing" {
			t.Errorf("an empty site: %v", err)
		}
	})
}

func TestListsAreNeverNull(t *testing.T) {
	w := newTestServer(t, false)
	for _, path := range []string{"/v1/policies", "/v1/mailboxes", "/v1/rolls", "/v1/key-usage"} {
		if _, body := w.raw("GET", path, ""); body != `{"items":[]}`+"\n" {
			t.Errorf("%s: %s", path, body)
		}
	}
	if _, body := w.raw("POST", "/v1/verify", ""); !strings.Contains(body, `"closed":[],"damaged":[]`) {
		t.Errorf("verify: %s", body)
	}
}

func TestServiceGetsTheIDOfTheRequest(t *testing.T) {
	w := newTestServer(t, false)
	var origin audit.Origin
	w.service.answer = func(ctx context.Context, _ string, _ any) (any, error) {
		origin = audit.OriginOf(ctx)
		return nil, nil
	}
	resp, _ := w.raw("GET", "/v1/policies", "", "X-Request-Id", "of-the-caller")
	if id := resp.Header.Get("X-Request-Id"); id == "" || id == "of-the-caller" || origin.Request != id || origin.System {
		t.Errorf("answered %q, the service saw %+v", id, origin)
	}
}

package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
)

func TestClientReceivesCodeAndHintOfEachFailure(t *testing.T) {
	both(t, func(t *testing.T, w *testServer) {
		for _, row := range fail.Table {
			err := fmt.Errorf("show policy: %w", fail.New(row.Code, "detail of %s", row.Code).WithHint("hint of %s", row.Code).Because(errors.New("hidden-cause")))
			w.service.answer = func(context.Context, string, any) (any, error) { return nil, err }
			w.service.read = func(context.Context, int64, io.Reader) error { return err }
			w.service.write = func(context.Context, int64, int64, io.Writer) error { return err }
			_, showed := w.client.ShowPolicy(background, api.PolicyInput{Policy: "p"})
			_, imported := w.client.ImportMail(background, api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: "m"}}, 5, strings.NewReader("12345"))
			_, exported := w.client.ExportMail(background, api.MailboxInput{Mailbox: "m"})
			_, got := w.client.GetFile(background, api.FileInput{SiteInput: api.SiteInput{Site: "s"}, Path: "p"}, 0, -1)
			for _, err := range []error{showed, imported, exported, got} {
				p := problem(t, err)
				detail, hint := "show policy: detail of "+string(row.Code), "hint of "+string(row.Code)
				if row.Code == api.Internal {
					detail, hint = "keyroll failed; its log names the cause under this request's id", ""
				}
				if p.Code != row.Code || p.Detail != detail || p.Hint != hint || p.Status != row.Status || p.Request == "" {
					t.Errorf("%s arrived as %+v", row.Code, p)
				}
				if row.Status >= 500 && !strings.Contains(w.log.String(), p.Request) {
					t.Errorf("%s is not in the log", row.Code)
				}
			}
		}
		if !strings.Contains(w.log.String(), "hidden-cause") {
			t.Error("the log does not name causes")
		}
	})
}

func TestInternalErrorTextIsLoggedAndNotSent(t *testing.T) {
	w := newTestServer(t, false)
	w.service.answer = func(context.Context, string, any) (any, error) {
		return nil, fmt.Errorf("list policies: %w", errors.New("database is locked: /var/lib/secret-path"))
	}
	resp, body := w.raw("GET", "/v1/policies", "")
	if p := problemIn(t, resp, body); p.Code != api.Internal || strings.Contains(body, "locked") || strings.Contains(body, "list policies") {
		t.Errorf("%s", body)
	}
	if !strings.Contains(w.log.String(), "list policies: database is locked") {
		t.Errorf("log: %s", w.log)
	}
}

func TestRequestsWithoutATokenAreRefused(t *testing.T) {
	w := newTestServer(t, true)
	w.service.answer = func(_ context.Context, name string, _ any) (any, error) {
		t.Errorf("%s was reached", name)
		return nil, nil
	}
	for header, challenge := range map[string]string{
		"": "Bearer", "Basic Z29vZA==": "Bearer", "Bearer": "Bearer", "Bearer ": "Bearer", "good": "Bearer",
		"Bearer wrong": `Bearer error="invalid_token"`, "Bearer good good": `Bearer error="invalid_token"`,
	} {
		for _, path := range []string{"/v1/policies", "/v1/no-such-operation"} {
			resp, body := w.raw("GET", path, "", "Authorization", header)
			p := problemIn(t, resp, body)
			if p.Status != http.StatusUnauthorized || p.Code != api.Unauthenticated || resp.Header.Get("WWW-Authenticate") != challenge {
				t.Errorf("%q at %s: %d %q %+v", header, path, resp.StatusCode, resp.Header.Get("WWW-Authenticate"), p)
			}
		}
	}
	resp, body := w.raw("GET", "/v1/policies", "", "Authorization", "Bearer broken")
	if p := problemIn(t, resp, body); p.Code != api.Internal || resp.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("a directory that fails: %+v", p)
	}
	if _, err := w.newClient("").ListPolicies(background, api.ListInput{}); problem(t, err).Code != api.Unauthenticated {
		t.Error(err)
	}
	if resp, _ := w.raw("GET", "/v1/policies", "", "Authorization", "Bearer wrong"); resp.Header.Get("Cache-Control") != "no-store" ||
		resp.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("headers: %v", resp.Header)
	}
}

func TestServiceGetsThePrincipalAndMayRefuse(t *testing.T) {
	w := newTestServer(t, false)
	w.service.answer = func(ctx context.Context, _ string, _ any) (any, error) {
		p, err := access.PrincipalOf(ctx)
		if err != nil {
			return nil, err
		}
		return nil, p.Check(api.Global)
	}
	if _, err := w.client.ListPolicies(background, api.ListInput{}); err != nil {
		t.Error(err)
	}
	_, err := w.newClient("weak").ListPolicies(background, api.ListInput{})
	if p := problem(t, err); p.Code != api.Forbidden || p.Status != http.StatusForbidden || !strings.Contains(p.Detail, "root") {
		t.Errorf("%+v", p)
	}
}

// Errors for input that is refused before the service name location and reason, and never
// show the value.
func TestBadInputIsRefusedWithoutAnEcho(t *testing.T) {
	w := newTestServer(t, true)
	w.service.answer = func(_ context.Context, name string, _ any) (any, error) {
		t.Errorf("%s was reached", name)
		return nil, nil
	}
	const s = "S3cret"
	for _, c := range []struct{ method, path, body, want string }{
		{"POST", "/v1/mailboxes", `{"name":"a","pollicy":"` + s + `"}`, "body.pollicy: unexpected property"},
		{"POST", "/v1/mailboxes", `{"Name":"` + s + `"}`, "body: expected required property name to be present; body.Name: unexpected property"},
		{"POST", "/v1/mailboxes", `{}`, "body: expected required property name to be present"},
		{"POST", "/v1/mailboxes", ``, "request body is required"},
		{"POST", "/v1/mailboxes", `{"name":5}`, "body.name: expected string"},
		{"POST", "/v1/mailboxes", `{"name":null}`, "body.name: expected string"},
		{"POST", "/v1/mailboxes", `["` + s + `"]`, "body: expected object"},
		{"POST", "/v1/mailboxes", `{"name":"` + s, "body: is not JSON, at byte 15"},
		{"POST", "/v1/mailboxes", `{"name":"a"}` + s, "body: is not JSON, at byte 13"},
		{"POST", "/v1/mailboxes", "\xff\xfe" + s, "body: the body is not UTF-8"},
		{"POST", "/v1/policies", `{"name":"a","keys":null}`, "body.keys: expected array"},
		{"POST", "/v1/policies", `{"name":"a","keys":["` + s + `",7]}`, "body.keys[1]: expected string"},
		{"POST", "/v1/policies/sites", `{"primary":{"vault":"v","key":"k"},"secondary":{"vault":"v","key":"k","version":"1","x":"` + s + `"}}`,
			"body.primary: expected required property version to be present; body.secondary.x: unexpected property"},
		{"PUT", "/v1/mailboxes/a/state", `{"state":"` + s + `"}`, `body.state: expected value to be one of "active, inactive, disconnected, disabled"`},
		{"POST", "/v1/policies/p/refresh", `{"allGenerations":"` + s + `"}`, "body.allGenerations: expected boolean"},
		{"POST", "/v1/rolls/1/pause", `{"x":"` + s + `"}`, "the operation has no request body"},
		{"GET", "/v1/tokens?after=" + s, "", "query.after: unknown query parameter"},
		{"GET", "/v1/mailboxes?limit=" + s, "", "query.limit: invalid integer"},
		{"GET", "/v1/mailboxes?limit=1001", "", "query.limit: expected number <= 1000"},
		{"GET", "/v1/mailboxes?limit=-1", "", "query.limit: expected number >= 0"},
		{"GET", "/v1/mailboxes?limit=99999999999999999999", "", "query.limit: invalid integer"},
		{"GET", "/v1/mailboxes?limit=1&limit=2", "", "query.limit: is given 2 times"},
		{"GET", "/v1/mailboxes?after", "", "the query has a part that is not of the form name=value"},
		{"GET", "/v1/mailboxes?after=%zz" + s, "", "the query is malformed"},
		{"GET", "/v1/mailboxes?after=1;limit=" + s, "", "the query is malformed"},
		{"GET", "/v1/site/file?path=" + s, "", "query.site: required query parameter is missing"},
		{"PUT", "/v1/site/file?site=x&path=y&depth=" + s, "content", "query.depth: unknown query parameter"},
		{"GET", "/v1/policies?" + strings.Repeat("x", 200) + "=1", "", "query." + strings.Repeat("x", 74) + "…: unknown query parameter"},
		{"GET", "/v1/policies?a%0ab%1b=1", "", `"query.a\nb\x1b": unknown query parameter`},
	} {
		resp, body := w.raw(c.method, c.path, c.body)
		p := problemIn(t, resp, body)
		if p.Code != api.InvalidArgument || p.Status != http.StatusBadRequest || p.Detail != c.want {
			t.Errorf("%s %s %s:\n%d %s, want\n%s", c.method, c.path, c.body, p.Status, p.Detail, c.want)
		}
		if strings.Contains(body, s) {
			t.Errorf("%s %s %s echoes: %s", c.method, c.path, c.body, body)
		}
	}
	resp, body := w.raw("POST", "/v1/mailboxes", `{"name":"a"}`, "Content-Type", "text/"+s)
	if p := problemIn(t, resp, body); p.Detail != "the body is not of type application/json" {
		t.Errorf("%+v", p)
	}
	var many []string
	for i := range 9 {
		many = append(many, fmt.Sprintf(`"x%d":1`, i))
	}
	_, body = w.raw("POST", "/v1/sites", "{"+strings.Join(many, ",")+"}")
	if !strings.Contains(body, "; and 5 more") {
		t.Errorf("many: %s", body)
	}
	if log := w.log.String(); strings.Contains(log, s) {
		t.Errorf("log: %s", log)
	}
}

func TestHugeJSONBodyIsRefused(t *testing.T) {
	both(t, func(t *testing.T, w *testServer) {
		var arrived int
		w.service.answer = func(_ context.Context, _ string, in any) (any, error) {
			arrived = len(in.(api.CreateSiteInput).Body.URL)
			return nil, nil
		}
		send := func(size int, chunked bool) (*http.Response, string) {
			body := `{"url":"` + strings.Repeat("x", size-len(`{"url":""}`)) + `"}`
			var r io.Reader = strings.NewReader(body)
			if chunked {
				r = io.MultiReader(r) // hides the length
			}
			req, err := http.NewRequest("POST", w.http.URL+"/v1/sites", r)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer good")
			resp, err := w.http.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return resp, string(text)
		}
		for _, chunked := range []bool{false, true} {
			arrived = 0
			if resp, body := send(1<<20, chunked); resp.StatusCode != 200 || arrived != 1<<20-len(`{"url":""}`) {
				t.Errorf("1 MiB: %s, %d bytes arrived: %s", resp.Status, arrived, body)
			}
			arrived = 0
			resp, body := send(1<<20+1, chunked)
			if p := problemIn(t, resp, body); p.Code != api.TooLarge || arrived != 0 {
				t.Errorf("a byte more: %d, %+v", arrived, p)
			}
		}
	})
}

func TestPanicIsAnInternalProblem(t *testing.T) {
	both(t, func(t *testing.T, w *testServer) {
		w.service.answer = func(context.Context, string, any) (any, error) { panic("S3cret") }
		w.service.write = func(_ context.Context, _, _ int64, out io.Writer) error {
			if _, err := io.WriteString(out, "beginning"); err != nil {
				return err
			}
			panic(errors.New("S3cret"))
		}
		_, err := w.client.ListPolicies(background, api.ListInput{})
		p := problem(t, err)
		if p.Code != api.Internal || p.Status != 500 {
			t.Errorf("%+v", p)
		}
		content, err := w.client.ExportMail(background, api.MailboxInput{Mailbox: "m"})
		if err == nil {
			_, err = io.ReadAll(content)
			content.Close()
		}
		if err == nil {
			t.Error("a panic in the middle of content shows as its end")
		}
		log := w.log.String()
		if !strings.Contains(log, p.Request) || !strings.Contains(log, "failure_test.go:") || strings.Contains(log, "S3cret") {
			t.Errorf("log: %s", log)
		}
		w.service.answer = nil
		if _, err := w.client.ListPolicies(background, api.ListInput{}); err != nil {
			t.Errorf("after a panic: %v", err)
		}
	})
}

func TestAccessLogContainsNoNames(t *testing.T) {
	w := newTestServer(t, true)
	w.service.answer = func(_ context.Context, name string, _ any) (any, error) {
		if name == "ShowMailbox" {
			return nil, fail.New(api.NotFound, "mailbox %q does not exist", "alice@contoso.com")
		}
		if name == "CreateMailbox" {
			return nil, fail.New(api.Damaged, "mailbox %q is damaged", "alice@contoso.com").Because(errors.New("seal 7 cannot be decrypted"))
		}
		return nil, nil
	}
	w.raw("GET", "/v1/mailboxes/alice@contoso.com", "")
	w.raw("POST", "/v1/mailboxes", `{"name":"alice@contoso.com"}`)
	w.raw("GET", "/v1/site?site=https://alice.example", "")
	w.raw("GET", "/v1/alice", "")
	w.raw("alice", "/v1/policies", "")
	w.raw("GET", "/v1/policies", "", "Authorization", "Bearer alice-token")
	w.http.Close() // ends all requests
	log := w.log.String()
	if strings.Contains(log, "alice") || strings.Contains(log, "good") {
		t.Errorf("log: %s", log)
	}
	for _, want := range []string{`"route":"GET /v1/mailboxes/{mailbox}"`, `"status":404`, `"status":401`, `"status":200`, `"status":500`, `"method":"other"`,
		w.auth.principal.ID.String(), `"code":"Damaged","cause":"seal 7 cannot be decrypted"`} {
		if !strings.Contains(log, want) {
			t.Errorf("log has no %s: %s", want, log)
		}
	}
	if n := strings.Count(log, `"msg":"request"`); n != 6 {
		t.Errorf("%d lines for 6 requests", n)
	}
}

package access_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/google/uuid"

	"keyroll/internal/access"
	"keyroll/internal/store/storetest"
)

// form is a complete request of Exchange to either form of the token endpoint, with
// changes; a field with no value is left out.
func (w *directory) form(t *testing.T, changes url.Values) url.Values {
	t.Helper()
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {access.Exchange.String()}, "client_secret": {w.secret(t, access.Exchange)},
		"scope": {vaultScope}, "resource": {"https://vault.localhost:8443"},
	}
	for field, values := range changes {
		form[field] = values
	}
	return form
}

// call returns the status and the answer of the login handler.
func (w *directory) call(t *testing.T, r *http.Request) (int, map[string]any) {
	t.Helper()
	rec := httptest.NewRecorder()
	w.dir.Handler().ServeHTTP(rec, r)
	var body map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
		t.Fatalf("%s: %d %q", r.URL, rec.Code, rec.Body)
	}
	return rec.Code, body
}

func formRequest(path string, form url.Values) *http.Request {
	r := httptest.NewRequest("POST", "https://127.0.0.1:8443"+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func TestTokenAnswersHaveTheFieldsOfTheirForm(t *testing.T) {
	ctx := context.Background()
	w := newDirectory(t, storetest.One(t))
	tenant := w.tenant.GUID.String()
	status, body := w.call(t, formRequest("/"+tenant+"/oauth2/v2.0/token", w.form(t, nil)))
	if status != 200 || body["token_type"] != "Bearer" || body["expires_in"] != 3600.0 || body["ext_expires_in"] != 3600.0 {
		t.Errorf("v2.0: %d %v", status, body)
	}
	for _, resource := range []string{"https://vault.localhost:8443", "https://Vault.localhost:8443/"} {
		status, body = w.call(t, formRequest("/"+tenant+"/oauth2/token", w.form(t, url.Values{"resource": {resource}, "scope": nil})))
		want := map[string]any{"token_type": "Bearer", "expires_in": "3600", "ext_expires_in": "3600", "resource": resource,
			"not_before": strconv.FormatInt(w.now.Unix(), 10), "expires_on": strconv.FormatInt(w.now.Add(time.Hour).Unix(), 10), "access_token": body["access_token"]}
		if status != 200 || fmt.Sprint(body) != fmt.Sprint(want) {
			t.Errorf("v1: %d %v, want %v", status, body, want)
		}
		token, _ := body["access_token"].(string)
		if p, err := w.dir.AuthenticateFor(ctx, token, vaultAudience); err != nil || p.ID != access.Exchange {
			t.Errorf("token for %s: %+v, %v", resource, p, err)
		}
	}
}

func TestErrorsHaveTheirNumbers(t *testing.T) {
	w := newDirectory(t, storetest.One(t))
	own, unknown := w.tenant.GUID.String(), uuid.NewString()
	v2, v1 := "/"+own+"/oauth2/v2.0/token", "/"+own+"/oauth2/token"
	for _, c := range []struct {
		name, path string
		changes    url.Values
		status     int
		code       string
		number     int
	}{
		{"wrong secret", v2, url.Values{"client_secret": {"x"}}, 401, "invalid_client", 7000215},
		{"unknown application", v2, url.Values{"client_id": {uuid.NewString()}}, 401, "invalid_client", 7000215},
		{"application no GUID", v2, url.Values{"client_id": {"exchange"}}, 400, "invalid_request", 700016},
		{"unknown tenant", "/" + unknown + "/oauth2/v2.0/token", nil, 400, "invalid_request", 90002},
		{"scope of one word", v2, url.Values{"scope": {"openid"}}, 400, "invalid_scope", 70011},
		{"unknown resource", v2, url.Values{"scope": {"https://graph.example/.default"}}, 400, "invalid_scope", 500011},
		{"unknown grant", v2, url.Values{"grant_type": {"password"}}, 400, "unsupported_grant_type", 70003},
		{"no grant", v2, url.Values{"grant_type": nil}, 400, "unsupported_grant_type", 900144},
		{"no scope", v2, url.Values{"scope": nil}, 400, "invalid_scope", 900144},
		{"no application", v2, url.Values{"client_id": nil}, 400, "invalid_request", 900144},
		{"no secret", v2, url.Values{"client_secret": nil}, 401, "invalid_client", 900144},
		{"v1, no resource", v1, url.Values{"resource": nil}, 400, "invalid_request", 900144},
		{"v1, unknown resource", v1, url.Values{"resource": {"https://graph.example"}}, 400, "invalid_resource", 500011},
		{"v1, wrong secret", v1, url.Values{"client_secret": {"x"}}, 401, "invalid_client", 7000215},
		{"v1, unknown tenant", "/" + unknown + "/oauth2/token", nil, 400, "invalid_request", 90002},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := formRequest(c.path, w.form(t, c.changes))
			correlation := uuid.NewString()
			r.Header.Set("client-request-id", correlation)
			status, body := w.call(t, r)
			description, _ := body["error_description"].(string)
			if status != c.status || body["error"] != c.code || !strings.HasPrefix(description, fmt.Sprintf("AADSTS%d: ", c.number)) ||
				fmt.Sprint(body["error_codes"]) != fmt.Sprint([]any{float64(c.number)}) {
				t.Errorf("got %d %v", status, body)
			}
			if _, has := body["error_uri"]; has || body["timestamp"] != "2026-03-01 12:00:00Z" || body["correlation_id"] != correlation {
				t.Errorf("got %v", body)
			}
			if trace, _ := body["trace_id"].(string); uuid.Validate(trace) != nil {
				t.Errorf("trace id %q", trace)
			}
		})
	}
}

func TestACorrelationIDThatIsNoGUIDIsReplaced(t *testing.T) {
	w := newDirectory(t, storetest.One(t))
	r := formRequest("/"+w.tenant.GUID.String()+"/oauth2/v2.0/token", nil)
	r.Header.Set("client-request-id", "<script>")
	_, body := w.call(t, r)
	if id, _ := body["correlation_id"].(string); uuid.Validate(id) != nil {
		t.Errorf("got %v", body)
	}
}

func TestUnknownApplicationsAreAnsweredLikeWrongSecrets(t *testing.T) {
	w := newDirectory(t, storetest.One(t))
	answer := func(id uuid.UUID) string {
		status, body := w.call(t, formRequest("/"+w.tenant.GUID.String()+"/oauth2/v2.0/token", w.form(t, url.Values{"client_id": {id.String()}, "client_secret": {"wrong"}})))
		text := fmt.Sprint(status, body)
		for _, own := range []any{id, body["trace_id"], body["correlation_id"]} {
			text = strings.ReplaceAll(text, fmt.Sprint(own), "ID")
		}
		return text
	}
	if known, unknown := answer(access.Exchange), answer(uuid.New()); known != unknown {
		t.Errorf("known:   %s\nunknown: %s", known, unknown)
	}
}

func TestInstanceDiscoveryConfirmsOnlyTheHostOfTheRequest(t *testing.T) {
	w := newDirectory(t, storetest.One(t))
	ask := func(endpoint string) (int, map[string]any) {
		query := url.Values{"api-version": {"1.1"}, "authorization_endpoint": {endpoint}}
		return w.call(t, httptest.NewRequest("GET", "https://keyroll.contoso.example:8443/common/discovery/instance?"+query.Encode(), nil))
	}
	const host = "keyroll.contoso.example:8443"
	for _, authority := range []string{"https://" + host, "https://keyroll.contoso.example", "https://KEYROLL.contoso.example:443"} {
		status, body := ask(authority + "/" + w.tenant.GUID.String() + "/oauth2/v2.0/authorize")
		want := map[string]any{
			"tenant_discovery_endpoint": "https://" + host + "/" + w.tenant.GUID.String() + "/v2.0/.well-known/openid-configuration", "api-version": "1.1",
			"metadata": []any{map[string]any{"preferred_network": host, "preferred_cache": host, "aliases": []any{host}}},
		}
		if status != 200 || fmt.Sprint(body) != fmt.Sprint(want) {
			t.Errorf("%s: %d %v", authority, status, body)
		}
	}
	for endpoint, number := range map[string]int{
		"":                                  900144,
		"https://keyroll.contoso.example":   9002313,
		"https://login.example/t/authorize": 50049,
		"https://keyroll.contoso.example.evil/t/authorize":               50049,
		"https://keyroll.contoso.example@evil.example/t/authorize":       50049,
		"https://evil.example@keyroll.contoso.example/t/authorize":       50049,
		"http://keyroll.contoso.example:8443/t/oauth2/v2.0/authorize":    50049,
		"//keyroll.contoso.example/t/authorize":                          50049,
		"https://keyroll.contoso.example:x/t/authorize":                  50049,
		"https://evil.example/https://keyroll.contoso.example/authorize": 50049,
	} {
		status, body := ask(endpoint)
		if description, _ := body["error_description"].(string); status != 400 || !strings.HasPrefix(description, fmt.Sprintf("AADSTS%d: ", number)) {
			t.Errorf("%q: %d %v", endpoint, status, body)
		}
		if number == 50049 && body["error"] != "invalid_instance" {
			t.Errorf("%q: %v", endpoint, body)
		}
	}
}

// publicLogin sends requests for Microsoft's public login host to the authority instead,
// as the proxy of a network without access to that host can, and records their paths.
type publicLogin struct {
	authority string // host
	next      http.RoundTripper
	asked     []string
}

func (p *publicLogin) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == "login.microsoftonline.com" {
		p.asked = append(p.asked, r.URL.Path)
		r = r.Clone(r.Context())
		r.URL.Host, r.Host = p.authority, p.authority
	}
	return p.next.RoundTrip(r)
}

// The official client asks Microsoft's public login host about an authority that it does
// not know, unless instance discovery is switched off.
func TestOfficialClientLogsInWithInstanceDiscovery(t *testing.T) {
	ctx := context.Background()
	w := newDirectory(t, storetest.One(t))
	w.now = time.Now()
	server := httptest.NewTLSServer(w.dir.Handler())
	defer server.Close()
	proxy := &publicLogin{authority: strings.TrimPrefix(server.URL, "https://"), next: server.Client().Transport}
	cred, err := azidentity.NewClientSecretCredential(w.tenant.GUID.String(), access.SharePoint.String(), w.secret(t, access.SharePoint),
		&azidentity.ClientSecretCredentialOptions{ClientOptions: azcore.ClientOptions{
			Transport: &http.Client{Transport: proxy}, Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: server.URL},
		}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://vault.localhost:8443/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := w.dir.AuthenticateFor(ctx, token.Token, vaultAudience); err != nil || p.ID != access.SharePoint {
		t.Errorf("authenticate: %+v, %v", p, err)
	}
	if len(proxy.asked) == 0 || slices.ContainsFunc(proxy.asked, func(path string) bool { return path != access.InstanceDiscovery }) {
		t.Errorf("asked of the public host: %v", proxy.asked)
	}
}

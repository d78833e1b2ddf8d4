package vault_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"

	"keyroll/internal/access"
)

func TestChallengeNamesTheTokenEndpoint(t *testing.T) {
	n := contoso(t, sqlite(t))
	for _, token := range []string{"", "kr_unknown", "abc"} {
		var p problem
		status, header := n.callWith("GET", n.url("contoso-A")+"/keys?api-version=7.4", "", token, &p)
		resource := strings.Replace(n.url("x"), "x.", "", 1)
		want := `Bearer authorization="` + n.server.URL + "/" + n.GUID.String() + `", resource="` + resource + `"`
		if status != 401 || !strings.HasPrefix(header.Get("WWW-Authenticate"), want) || p.Error.Code != "Unauthorized" {
			t.Errorf("%d %q %+v", status, header.Get("WWW-Authenticate"), p)
		}
	}
}

func TestRequestsAreNumbered(t *testing.T) {
	n := contoso(t, sqlite(t))
	for _, url := range []string{n.url("contoso-A") + "/keys?api-version=7.4", n.server.URL + "/subscriptions?api-version=2022-12-01"} {
		for _, token := range []string{n.token, ""} {
			_, header := n.callWith("GET", url, "", token, nil)
			id := header.Get("X-Ms-Request-Id")
			if _, err := uuid.Parse(id); err != nil {
				t.Errorf("request id %q", id)
			}
			if token != "" && !strings.Contains(n.log.String(), id) {
				t.Errorf("the log does not name request %s", id)
			}
		}
	}
}

func TestOnlyHostsUnderTheVaultDomainAreServed(t *testing.T) {
	n := newTestServer(t, sqlite(t))
	for host, want := range map[string]bool{
		"contoso.managedhsm.localhost": true, "contoso.managedhsm.vault.localhost": false, "managedhsm.localhost": false,
		"contoso.vault.localhost": true, "Contoso.VAULT.localhost:8443": true,
		"vault.localhost": false, "vault.localhost:8443": false, ".vault.localhost": false, "": false,
		"a.b.vault.localhost": false, "contoso.vault.localhost.evil": false, "contoso.evilvault.localhost": false,
		"127.0.0.1:8443": false, "[::1]:8443": false,
	} {
		if got := n.vaults.Serves(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

func TestBadRequestIsRefusedPrecisely(t *testing.T) {
	n := contoso(t, sqlite(t))
	create(t, n.keys("contoso-A"), "k", ec())
	const v = "?api-version=7.4"
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code, word               string
	}{
		{"no version of the API", "GET", "/keys", "", 400, "BadParameter", "api-version"},
		{"old version", "GET", "/keys?api-version=7.3", "", 400, "BadParameter", "7.4"},
		{"old dated version", "GET", "/keys?api-version=2016-10-01", "", 400, "BadParameter", "not supported"},
		{"no operation", "GET", "/secrets" + v, "", 404, "NotFound", "GET"},
		{"other method", "PUT", "/keys/k/backup" + v, "", 405, "MethodNotAllowed", "it has POST"},
		{"bad name", "GET", "/keys/k.1" + v, "", 400, "BadParameter", "letters, digits, hyphens and underscores"},
		{"escaped name", "GET", "/keys/%6b" + v, "", 400, "BadParameter", "letters, digits, hyphens and underscores"},
		{"long name", "GET", "/keys/" + strings.Repeat("a", 128) + v, "", 400, "BadParameter", "127"},
		{"bad version", "GET", "/keys/k/1" + v, "", 400, "BadParameter", "32 hexadecimal"},
		{"no body", "POST", "/keys/new/create" + v, "", 400, "BadParameter", "empty"},
		{"no JSON", "POST", "/keys/new/create" + v, "kty=RSA", 400, "BadParameter", "JSON"},
		{"two values", "POST", "/keys/new/create" + v, `{"kty":"EC"}{}`, 400, "BadParameter", "JSON"},
		{"an array", "POST", "/keys/new/create" + v, `[]`, 400, "BadParameter", "array"},
		{"too long", "POST", "/keys/new/create" + v, `{"kty":"` + strings.Repeat("R", 70<<10) + `"}`, 413, "BadParameter", "65536"},
		{"a member twice", "POST", "/keys/new/create" + v, `{"kty":"EC","tags":{"a":"b"},"kty":"RSA"}`, 400, "BadParameter", "two members of the same name"},
		{"wrong type", "POST", "/keys/new/create" + v, `{"kty":"RSA","key_size":"2048"}`, 400, "BadParameter", "key_size"},
		{"no kty", "POST", "/keys/new/create" + v, `{}`, 400, "BadParameter", "kty"},
		{"symmetric", "POST", "/keys/new/create" + v, `{"kty":"oct-HSM"}`, 400, "BadParameter", "oct-HSM"},
		{"small", "POST", "/keys/new/create" + v, `{"kty":"RSA","key_size":1024}`, 400, "BadParameter", "1024"},
		{"odd exponent", "POST", "/keys/new/create" + v, `{"kty":"RSA","public_exponent":3}`, 400, "BadParameter", "65537"},
		{"curve of Bitcoin", "POST", "/keys/new/create" + v, `{"kty":"EC","crv":"P-256K"}`, 400, "BadParameter", "P-256K"},
		{"operation of EC", "POST", "/keys/new/create" + v, `{"kty":"EC","key_ops":["wrapKey"]}`, 400, "BadParameter", "wrapKey"},
		{"unknown operation", "POST", "/keys/new/create" + v, `{"kty":"RSA","key_ops":["wrap"]}`, 400, "BadParameter", "wrap"},
		{"operation twice", "POST", "/keys/new/create" + v, `{"kty":"RSA","key_ops":["wrapKey","wrapKey"]}`, 400, "BadParameter", "twice"},
		{"exportable", "POST", "/keys/new/create" + v, `{"kty":"EC","attributes":{"exportable":true}}`, 400, "BadParameter", "exportable"},
		{"release policy", "POST", "/keys/new/create" + v, `{"kty":"EC","release_policy":{}}`, 403, "Forbidden", "this vault offers no operation release"},
		{"negative time", "POST", "/keys/new/create" + v, `{"kty":"EC","attributes":{"nbf":-1}}`, 400, "BadParameter", "nbf"},
		{"time after 9999", "POST", "/keys/new/create" + v, `{"kty":"EC","attributes":{"exp":253402300800}}`, 400, "BadParameter", "exp"},
		{"ends before it begins", "POST", "/keys/new/create" + v, `{"kty":"EC","attributes":{"nbf":5,"exp":5}}`, 400, "BadParameter", "exp"},
		{"tag without a name", "POST", "/keys/new/create" + v, `{"kty":"EC","tags":{"":"x"}}`, 400, "BadParameter", "tag"},
		{"wrap nothing", "POST", "/keys/k/wrapkey" + v, `{"alg":"RSA-OAEP-256"}`, 400, "BadParameter", "value"},
		{"wrap no base64", "POST", "/keys/k/wrapkey" + v, `{"alg":"RSA-OAEP-256","value":"*"}`, 400, "BadParameter", "base64url"},
		{"many results", "GET", "/keys" + v + "&maxresults=26", "", 400, "BadParameter", "maxresults"},
		{"no results", "GET", "/keys" + v + "&maxresults=0", "", 400, "BadParameter", "maxresults"},
		{"bad page", "GET", "/keys" + v + "&$skiptoken=*", "", 400, "BadParameter", "skiptoken"},
		{"bad page of versions", "GET", "/keys/k/versions" + v + "&$skiptoken=eA", "", 400, "BadParameter", "skiptoken"},
		{"page beyond numbers", "GET", "/keys/k/versions" + v + "&$skiptoken=" + base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("9", 30))), "", 400, "BadParameter", "skiptoken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p problem
			status := n.call(c.method, n.url("contoso-A")+c.path, c.body, &p)
			if status != c.status || p.Error.Code != c.code || !strings.Contains(p.Error.Message, c.word) {
				t.Errorf("%d %+v", status, p.Error)
			}
		})
	}
	var p problem
	if status := n.call("GET", n.url("unknown")+"/keys"+v, "", &p); status != 404 || p.Error.Code != "VaultNotFound" {
		t.Errorf("unknown vault: %d %+v", status, p)
	}
	if rows := count(t, n.db, "vault_key"); rows != 1 {
		t.Errorf("%d keys now", rows)
	}
	if strings.Contains(n.log.String(), `"level":"ERROR"`) {
		t.Errorf("an error was logged as internal: %s", n.log.String())
	}
}

// serve makes a request as the admin without a network.
func (n *tenant) serve(method, host, path, query, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "https://x/", strings.NewReader(body))
	r.Method, r.Host, r.URL.Path, r.URL.RawQuery = method, host, path, query
	r.Header.Set("Authorization", "Bearer "+n.token)
	rec := httptest.NewRecorder()
	if n.vaults.Serves(host) {
		n.vaults.Handler().ServeHTTP(rec, r)
	} else {
		n.vaults.Management().ServeHTTP(rec, r)
	}
	return rec
}

// checkAnswer fails on an answer that is neither a success nor a refusal with a reason.
func checkAnswer(t *testing.T, rec *httptest.ResponseRecorder) {
	t.Helper()
	if rec.Code < 300 {
		return
	}
	var p problem
	if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || p.Error.Code == "" || p.Error.Message == "" || rec.Code >= http.StatusInternalServerError {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
}

func FuzzVaultRequests(f *testing.F) {
	n := contoso(f, sqlite(f))
	create(f, n.keys("contoso-A"), "k", ec())
	f.Add("GET", "/keys", "maxresults=1&$skiptoken=aw", "")
	f.Add("GET", "/keys/k/versions", "$skiptoken=MQ", "")
	f.Add("POST", "/keys/k/create", "", `{"kty":"EC","key_ops":["sign"],"attributes":{"nbf":1,"exp":2},"tags":{"a":"b"}}`)
	f.Add("PATCH", "/keys/k/", "", `{"attributes":{"enabled":false,"created":1}}`)
	f.Add("POST", "/keys/k//unwrapkey", "", `{"alg":"RSA-OAEP-256","value":"AAAA"}`)
	f.Add("POST", "/keys/restore", "", `{"value":"AQID"}`)
	f.Add("DELETE", "//keys\x00/k", "", "\xff")
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		if strings.Contains(body, "RSA") && strings.HasSuffix(path, "create") {
			return // slow, and no other way through the decoder
		}
		checkAnswer(t, n.serve(method, "contoso-A."+domain, path, "api-version=7.4&"+query, body))
	})
}

func FuzzManagementRequests(f *testing.F) {
	n := contoso(f, sqlite(f))
	group := "/subscriptions/" + n.subscription + "/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/"
	f.Add("PUT", group+"new", "", `{"location":"eastus","properties":{"sku":{"name":"premium"},"accessPolicies":[]}}`)
	f.Add("PATCH", group+"contoso-A", "", `{"tags":{"a":"b"},"properties":{"enablePurgeProtection":true}}`)
	f.Add("PUT", group+"contoso-A/accessPolicies/add", "",
		`{"properties":{"accessPolicies":[{"objectId":"`+access.Exchange.String()+`","permissions":{"keys":["get"]}}]}}`)
	f.Add("GET", strings.TrimSuffix(group, "/"), "$skiptoken=YQ", "")
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		checkAnswer(t, n.serve(method, "127.0.0.1", path, "api-version=2024-11-01&"+query, body))
	})
}

func FuzzRestoreRejectsForeignBackups(f *testing.F) {
	n := contoso(f, sqlite(f))
	f.Add([]byte{1, 2, 3})
	f.Add(append([]byte{1}, make([]byte, 60)...))
	f.Fuzz(func(t *testing.T, blob []byte) {
		body := `{"value":"` + base64.RawURLEncoding.EncodeToString(blob) + `"}`
		rec := n.serve("POST", "contoso-A."+domain, "/keys/restore", "api-version=7.4", body)
		if rec.Code != http.StatusBadRequest && rec.Code != http.StatusRequestEntityTooLarge {
			t.Fatalf("%x: %d %s", blob, rec.Code, rec.Body)
		}
	})
}

// A caller that disconnects before its answer is not a failure of the vault.
func TestACallerThatDisconnectsIsNotLoggedAsAFailure(t *testing.T) {
	n := contoso(t, sqlite(t))
	gone, leave := context.WithCancel(ctx)
	leave()
	for path, h := range map[string]http.Handler{
		"https://contoso-A." + domain + "/keys?api-version=7.4":                                                  n.vaults.Handler(),
		"https://" + domain + "/subscriptions?api-version=2022-12-01":                                            n.vaults.Management(),
		"https://" + domain + "/6c2f7e5a-0d3b-4b0e-9d57-1f0a6a3c8e01/oauth2/v2.0/token?grant=client_credentials": n.dir.Handler(),
	} {
		r := httptest.NewRequestWithContext(gone, http.MethodPost, path, nil)
		if !strings.Contains(path, "token") {
			r.Method = http.MethodGet
		}
		r.Header.Set("Authorization", "Bearer keyroll_x")
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	if log := n.log.String(); strings.Contains(log, "ERROR") {
		t.Errorf("the log has %s", log)
	}
}

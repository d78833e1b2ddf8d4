package access_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
	"keyroll/internal/seal"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// directory is an access.Directory with one tenant, and a clock that the test moves.
type directory struct {
	db     *store.DB
	seal   *seal.Seal
	dir    *access.Directory
	tenant access.Tenant
	now    time.Time
}

func newDirectory(t testing.TB, db *store.DB) *directory {
	t.Helper()
	ctx := context.Background()
	s, err := seal.Open(ctx, "file://"+filepath.Join(t.TempDir(), "seal"))
	if err != nil {
		t.Fatal(err)
	}
	w := &directory{db: db, seal: s, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	w.dir = w.open(t)
	w.tenant = w.create(t, "contoso")
	return w
}

func (w *directory) open(t testing.TB) *access.Directory {
	t.Helper()
	d, err := access.Open(context.Background(), access.Config{DB: w.db, Seal: w.seal, VaultDomain: "Vault.localhost", Now: func() time.Time { return w.now }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (w *directory) create(t testing.TB, name string) (tenant access.Tenant) {
	t.Helper()
	err := w.db.InTx(context.Background(), func(tx *store.Tx) (err error) {
		if tenant, err = w.dir.CreateTenant(context.Background(), tx, name); err != nil {
			return err
		}
		return w.dir.FinishTenant(context.Background(), tx, tenant.ID)
	})
	if err != nil {
		t.Fatal(err)
	}
	return tenant
}

func (w *directory) secret(t testing.TB, id uuid.UUID) string {
	t.Helper()
	secret, err := w.dir.ClientSecret(context.Background(), w.tenant.ID, id)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// token gets a token from the token endpoint by a plain request.
func (w *directory) token(t testing.TB, id uuid.UUID, scope string) string {
	t.Helper()
	status, body := w.post(w.tenant.GUID.String(), url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id.String()},
		"client_secret": {w.secret(t, id)}, "scope": {scope},
	})
	token, _ := body["access_token"].(string)
	if status != http.StatusOK || token == "" {
		t.Fatalf("token: %d %v", status, body)
	}
	return token
}

func (w *directory) post(tenant string, form url.Values) (int, map[string]any) {
	r := httptest.NewRequest("POST", "https://127.0.0.1:8443/"+tenant+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	rec := httptest.NewRecorder()
	w.dir.Handler().ServeHTTP(rec, r)
	var body map[string]any
	json.Unmarshal(rec.Body.Bytes(), &body)
	return rec.Code, body
}

const vaultScope = "https://vault.localhost:8443/.default openid offline_access profile"

var vaultAudience = access.VaultAudience("vault.localhost:8443")

func TestTenantIsCreatedWithItsPrincipals(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		w := newDirectory(t, db)
		other := w.create(t, "fabrikam")
		err := db.ViewOnce(ctx, func(tx *store.Tx) error {
			all, err := w.dir.Tenants(ctx, tx, 0, 10)
			if err != nil || len(all) != 2 || all[0] != w.tenant || all[1] != other {
				t.Errorf("tenants: %v, %v", all, err)
			}
			if got, err := w.dir.Tenant(ctx, tx, other.ID); err != nil || got != other {
				t.Errorf("tenant by id: %v, %v", got, err)
			}
			if _, err := w.dir.Tenant(ctx, tx, 1); !fail.Is(err, api.NotFound) {
				t.Errorf("unknown tenant: %v", err)
			}
			for _, id := range []uuid.UUID{access.Exchange, access.SharePoint, access.DataAtRestEncryption} {
				p, err := w.dir.Principal(ctx, tx, w.tenant.ID, id)
				if err != nil || p.Check(access.Service) != nil || p.Check(api.Global) == nil {
					t.Errorf("principal %s: %+v, %v", id, p, err)
				}
			}
			_, err = w.dir.Principal(ctx, tx, w.tenant.ID, uuid.New())
			if !fail.Is(err, api.NotFound) {
				t.Errorf("unknown principal: %v", err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		mine, _ := w.dir.ClientSecret(ctx, w.tenant.ID, access.Exchange)
		theirs, _ := w.dir.ClientSecret(ctx, other.ID, access.Exchange)
		if mine == "" || mine == theirs {
			t.Error("two tenants share a secret")
		}
		err = db.InTx(ctx, func(tx *store.Tx) error {
			_, err := w.dir.CreateTenant(ctx, tx, "contoso")
			return err
		})
		if !fail.Is(err, api.AlreadyExists) {
			t.Errorf("the same name again: %v", err)
		}
		for _, name := range []string{"", strings.Repeat("a", 257), "a\x00", "\xff", " a", uuid.NewString()} {
			err = db.InTx(ctx, func(tx *store.Tx) error {
				_, err := w.dir.CreateTenant(ctx, tx, name)
				return err
			})
			if !fail.Is(err, api.InvalidArgument) {
				t.Errorf("name %q: %v", name, err)
			}
		}
	})
}

func TestAdminTokenAuthenticatesOnlyTheAdminOfItsTenant(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		w := newDirectory(t, db)
		token, err := w.dir.AdminToken(ctx, w.tenant.ID)
		if err != nil || !strings.HasPrefix(token, "kr_") {
			t.Fatalf("token %q, %v", token, err)
		}
		p, err := w.dir.Authenticate(ctx, token)
		if err != nil || p.Tenant != w.tenant.ID || p.Check(api.Global) != nil {
			t.Errorf("authenticate: %+v, %v", p, err)
		}
		if _, err := w.dir.AdminToken(ctx, 12345); !fail.Is(err, api.NotFound) {
			t.Errorf("token of no tenant: %v", err)
		}
	})
}

func TestCheckNamesPrincipalAndRole(t *testing.T) {
	p := access.Principal{ID: access.Exchange, Name: "Office 365 Exchange Online", Roles: []api.Role{access.Service}}
	err := p.Check(api.Global)
	if !fail.Is(err, api.Forbidden) || !strings.Contains(err.Error(), p.Name) ||
		!strings.Contains(err.Error(), p.ID.String()) || !strings.Contains(err.Error(), ": global") {
		t.Errorf("got %v", err)
	}
}

func TestTokenIsValidForItsAudienceForOneHour(t *testing.T) {
	ctx := context.Background()
	w := newDirectory(t, storetest.One(t))
	token := w.token(t, access.Exchange, vaultScope)
	again := w.open(t) // another node on the same database
	p, err := again.AuthenticateFor(ctx, token, vaultAudience)
	if err != nil || p.ID != access.Exchange || p.Tenant != w.tenant.ID {
		t.Fatalf("another node: %+v, %v", p, err)
	}
	for _, audience := range []string{access.ServiceAudience, access.VaultAudience("vault.localhost"), ""} {
		if _, err := w.dir.AuthenticateFor(ctx, token, audience); !fail.Is(err, api.Unauthenticated) {
			t.Errorf("audience %q: %v", audience, err)
		}
	}
	service := w.token(t, access.Exchange, "https://127.0.0.1:8443/.default")
	if _, err := w.dir.Authenticate(ctx, service); err != nil {
		t.Errorf("a token for keyroll's own interfaces: %v", err)
	}
	if _, err := w.dir.AuthenticateFor(ctx, service, vaultAudience); !fail.Is(err, api.Unauthenticated) {
		t.Errorf("the same at a vault: %v", err)
	}
	w.now = w.now.Add(time.Hour - time.Second)
	if _, err := w.dir.AuthenticateFor(ctx, token, vaultAudience); err != nil {
		t.Errorf("a second before its end: %v", err)
	}
	w.now = w.now.Add(time.Second)
	if _, err := w.dir.AuthenticateFor(ctx, token, vaultAudience); !fail.Is(err, api.Unauthenticated) {
		t.Errorf("at its end: %v", err)
	}
}

func TestForgedTokensAreRefused(t *testing.T) {
	ctx := context.Background()
	w := newDirectory(t, storetest.One(t))
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	good := w.token(t, access.Exchange, vaultScope)
	claims := func() jwt.MapClaims {
		c := jwt.MapClaims{}
		if _, _, err := jwt.NewParser().ParseUnverified(good, c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	sign := func(method jwt.SigningMethod, key any) string {
		token, err := jwt.NewWithClaims(method, claims()).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	parts := strings.Split(good, ".")
	elsewhere := claims()
	elsewhere["tid"] = uuid.NewString()
	body, _ := json.Marshal(elsewhere)
	for name, token := range map[string]string{
		"nothing":             "",
		"no token":            "abc",
		"another signer":      sign(jwt.SigningMethodEdDSA, private),
		"no signature":        sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"another algorithm":   sign(jwt.SigningMethodHS256, []byte(public)),
		"other claims":        parts[0] + "." + base64.RawURLEncoding.EncodeToString(body) + "." + parts[2],
		"cut":                 good[:len(good)-4],
		"long":                strings.Repeat("a", 5000),
		"unknown opaque":      "kr_" + strings.Repeat("0", 64),
		"a client's secret":   w.secret(t, access.Exchange),
		"and with the prefix": "kr_" + w.secret(t, access.Exchange),
	} {
		if p, err := w.dir.AuthenticateFor(ctx, token, vaultAudience); !fail.Is(err, api.Unauthenticated) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// A token that keyroll itself signed is refused if one of its claims is missing or
// invalid.
func TestSignedTokensWithOtherClaimsAreRefused(t *testing.T) {
	ctx := context.Background()
	w := newDirectory(t, storetest.One(t))
	good := w.token(t, access.Exchange, vaultScope)
	try := func(name string, value any) error {
		claims := jwt.MapClaims{}
		if _, _, err := jwt.NewParser().ParseUnverified(good, claims); err != nil {
			t.Fatal(err)
		}
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
		token, err := w.dir.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.dir.AuthenticateFor(ctx, token, vaultAudience)
		return err
	}
	if err := try("more", "than others"); err != nil {
		t.Errorf("with the claims that a token has: %v", err)
	}
	for name, value := range map[string]any{"exp": float64(w.now.Unix()), "iat": float64(w.now.Add(time.Minute).Unix()), "aud": "https://elsewhere", "tid": uuid.NewString(), "oid": uuid.NewString()} {
		if err := try(name, value); !fail.Is(err, api.Unauthenticated) {
			t.Errorf("%s %v: %v", name, value, err)
		}
	}
	for _, name := range []string{"exp", "aud", "tid", "oid"} {
		if err := try(name, nil); !fail.Is(err, api.Unauthenticated) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestTokenOfARemovedPrincipalIsRefused(t *testing.T) {
	ctx := context.Background()
	w := newDirectory(t, storetest.One(t))
	token := w.token(t, access.SharePoint, vaultScope)
	if _, err := w.dir.AuthenticateFor(ctx, token, vaultAudience); err != nil {
		t.Fatal(err)
	}
	err := w.db.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM principal WHERE id = ?1`, access.SharePoint.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.dir.AuthenticateFor(ctx, token, vaultAudience); !fail.Is(err, api.Unauthenticated) {
		t.Errorf("got %v", err)
	}
}

// A signed token is valid for an hour, whatever becomes of the secret for which it was issued:
// so no one is issued for a token or a one-time code.
func TestTokensAreNoClientSecrets(t *testing.T) {
	ctx := context.Background()
	w := newDirectory(t, storetest.One(t))
	for _, kind := range []access.Kind{access.ByToken, access.ByCode, access.ByEnrolment, access.ByApplication} {
		var p access.Principal
		var token string
		err := w.db.InTx(ctx, func(tx *store.Tx) (err error) {
			p, token, err = w.dir.AddToken(ctx, tx, access.Principal{Tenant: w.tenant.ID, Name: "of kind " + string(kind), Roles: []api.Role{api.Vault}, Kind: kind, Created: w.now}, uuid.Nil)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		status, body := w.post(w.tenant.GUID.String(), url.Values{"grant_type": {"client_credentials"}, "client_id": {p.ID.String()}, "client_secret": {token}, "scope": {vaultScope}})
		if status != http.StatusUnauthorized || body["error"] != "invalid_client" {
			t.Errorf("%s: %d %v", kind, status, body)
		}
	}
}

func TestTokenEndpointRefusesInvalidRequests(t *testing.T) {
	w := newDirectory(t, storetest.One(t))
	tenant := w.tenant.GUID.String()
	other := w.create(t, "fabrikam").GUID.String()
	for _, c := range []struct {
		name, tenant string
		change       url.Values
		status       int
		code         string
	}{
		{"unknown tenant", uuid.NewString(), nil, 400, "invalid_request"},
		{"no tenant", "common", nil, 400, "invalid_request"},
		{"another tenant's secret", other, nil, 401, "invalid_client"},
		{"wrong secret", tenant, url.Values{"client_secret": {"x"}}, 401, "invalid_client"},
		{"no secret", tenant, url.Values{"client_secret": {""}}, 401, "invalid_client"},
		{"unknown client", tenant, url.Values{"client_id": {uuid.NewString()}}, 401, "invalid_client"},
		{"client no GUID", tenant, url.Values{"client_id": {"exchange"}}, 400, "invalid_request"},
		{"password grant", tenant, url.Values{"grant_type": {"password"}}, 400, "unsupported_grant_type"},
		{"no scope", tenant, url.Values{"scope": {"openid"}}, 400, "invalid_scope"},
		{"two resources", tenant, url.Values{"scope": {vaultScope + " https://127.0.0.1:8443/.default"}}, 400, "invalid_scope"},
		{"foreign resource", tenant, url.Values{"scope": {"https://graph.example/.default"}}, 400, "invalid_scope"},
		{"a suffix alike", tenant, url.Values{"scope": {"https://evilvault.localhost/.default"}}, 400, "invalid_scope"},
		{"not https", tenant, url.Values{"scope": {"http://vault.localhost/.default"}}, 400, "invalid_scope"},
	} {
		t.Run(c.name, func(t *testing.T) {
			form := url.Values{
				"grant_type": {"client_credentials"}, "client_id": {access.Exchange.String()},
				"client_secret": {w.secret(t, access.Exchange)}, "scope": {vaultScope},
			}
			for k, v := range c.change {
				form[k] = v
			}
			status, body := w.post(c.tenant, form)
			if status != c.status || body["error"] != c.code || body["error_description"] == "" {
				t.Errorf("got %d %v", status, body)
			}
			text, _ := json.Marshal(body)
			if strings.Contains(string(text), w.secret(t, access.Exchange)) {
				t.Error("the answer repeats the secret")
			}
		})
	}
}

func TestOfficialClientLogsIn(t *testing.T) {
	ctx := context.Background()
	w := newDirectory(t, storetest.One(t))
	w.now = time.Now()
	server := httptest.NewTLSServer(w.dir.Handler())
	defer server.Close()
	login := func(id, secret string) (azcore.AccessToken, error) {
		cred, err := azidentity.NewClientSecretCredential(w.tenant.GUID.String(), id, secret,
			&azidentity.ClientSecretCredentialOptions{
				ClientOptions: azcore.ClientOptions{
					Transport: server.Client(),
					Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: server.URL},
				},
				DisableInstanceDiscovery: true,
			})
		if err != nil {
			t.Fatal(err)
		}
		return cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://vault.localhost:8443/.default"}})
	}
	token, err := login(access.SharePoint.String(), w.secret(t, access.SharePoint))
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.dir.AuthenticateFor(ctx, token.Token, vaultAudience)
	if err != nil || p.ID != access.SharePoint {
		t.Errorf("authenticate: %+v, %v", p, err)
	}
	if _, err := login(access.SharePoint.String(), "wrong"); err == nil || !strings.Contains(err.Error(), "invalid_client") {
		t.Errorf("wrong secret: %v", err)
	}
}

func TestPublishedKeyVerifiesTokens(t *testing.T) {
	w := newDirectory(t, storetest.One(t))
	rec := httptest.NewRecorder()
	w.dir.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/"+w.tenant.GUID.String()+"/discovery/v2.0/keys", nil))
	var set struct {
		Keys []struct{ X, Kid string }
	}
	if err := json.NewDecoder(rec.Body).Decode(&set); err != nil || len(set.Keys) != 1 {
		t.Fatalf("keys: %v, %v", set, err)
	}
	public, err := base64.RawURLEncoding.DecodeString(set.Keys[0].X)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Parse(w.token(t, access.Exchange, vaultScope),
		func(token *jwt.Token) (any, error) { return ed25519.PublicKey(public), nil },
		jwt.WithTimeFunc(func() time.Time { return w.now }))
	if err != nil || token.Header["kid"] != set.Keys[0].Kid {
		t.Errorf("verify: %v", err)
	}
}

func TestDatabaseContainsNoSecret(t *testing.T) {
	ctx := context.Background()
	w := newDirectory(t, storetest.One(t))
	admin, err := w.dir.AdminToken(ctx, w.tenant.ID)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	err = w.db.ViewOnce(ctx, func(tx *store.Tx) error {
		for _, query := range []string{`SELECT secret_hash FROM principal`, `SELECT sealed FROM secret`} {
			rows, err := tx.Query(ctx, query)
			if err != nil {
				return err
			}
			for rows.Next() {
				var b []byte
				if err := rows.Scan(&b); err != nil {
					return err
				}
				all.Write(b)
			}
			if err := rows.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || all.Len() == 0 {
		t.Fatalf("read %d bytes, %v", all.Len(), err)
	}
	for _, secret := range []string{admin, w.secret(t, access.Exchange)} {
		if strings.Contains(all.String(), secret) {
			t.Error("a secret is in plaintext")
		}
	}
}

func FuzzAuthenticateRejectsForeignTokens(f *testing.F) {
	w := newDirectory(f, storetest.One(f))
	token := w.token(f, access.Exchange, vaultScope)
	f.Add(token[:len(token)-1])
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("kr_")
	f.Fuzz(func(t *testing.T, bearer string) {
		if bearer == token {
			return
		}
		if _, err := w.dir.AuthenticateFor(context.Background(), bearer, vaultAudience); !fail.Is(err, api.Unauthenticated) {
			t.Fatalf("%q: %v", bearer, err)
		}
	})
}

func FuzzTokenEndpointRefusesForms(f *testing.F) {
	w := newDirectory(f, storetest.One(f))
	f.Add(w.tenant.GUID.String(), "grant_type=client_credentials&scope=https://vault.localhost/.default&client_id=x")
	f.Add("%00", "a=%zz")
	f.Fuzz(func(t *testing.T, tenant, form string) {
		r := httptest.NewRequest("POST", "https://127.0.0.1/"+url.PathEscape(tenant)+"/oauth2/v2.0/token", strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		rec := httptest.NewRecorder()
		w.dir.Handler().ServeHTTP(rec, r)
		if rec.Code < 300 || rec.Code >= 500 {
			body, _ := io.ReadAll(rec.Body)
			t.Fatalf("%q %q: %d %s", tenant, form, rec.Code, body)
		}
	})
}

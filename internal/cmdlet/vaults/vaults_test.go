package vaults_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/cmdlet"
	"keyroll/internal/cmdlet/vaults"
	"keyroll/internal/fail"
	"keyroll/internal/seal"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
	"keyroll/internal/vault"
)

const (
	domain   = "vault.localhost"
	exchange = "00000002-0000-0ff1-ce00-000000000000"
)

var ctx = context.Background()

// lent is an HTTPS server under the vault domain, and a client of it. All connections go
// to it, whatever the host; it records which hosts were sent a token.
type lent struct {
	url    string
	http   *http.Client
	mu     sync.Mutex
	tokens map[string]bool // hosts that got an Authorization header
}

func startServer(t *testing.T, handler http.Handler) *lent {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"*." + domain, "*.example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	l := &lent{tokens: map[string]bool{}}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			l.mu.Lock()
			l.tokens[r.Host] = true
			l.mu.Unlock()
		}
		handler.ServeHTTP(w, r)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	l.url, l.http = server.URL, &http.Client{Transport: transport}
	return l
}

func (l *lent) client(t *testing.T, token string) *vaults.Client {
	t.Helper()
	c, err := vaults.New(vaults.Options{URL: l.url, Domain: domain, Token: token, HTTP: l.http})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// contoso is the client of a tenant's admin against the real embedded vault.
func contoso(t *testing.T) *vaults.Client {
	t.Helper()
	db := storetest.One(t)
	s, err := seal.Open(ctx, "file://"+filepath.Join(t.TempDir(), "seal"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	directory, err := access.Open(ctx, access.Config{DB: db, Seal: s, VaultDomain: domain, Now: time.Now, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	var tenant access.Tenant
	err = db.InTx(ctx, func(tx *store.Tx) (err error) {
		tenant, err = directory.CreateTenant(ctx, tx, "contoso")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	token, err := directory.AdminToken(ctx, tenant.ID)
	if err != nil {
		t.Fatal(err)
	}
	var embedded *vault.Vaults
	l := startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if embedded.Serves(r.Host) {
			embedded.Handler().ServeHTTP(w, r)
			return
		}
		embedded.Management().ServeHTTP(w, r)
	}))
	embedded = vault.Open(vault.Config{DB: db, Seal: s, Directory: directory, Logger: log, Now: time.Now, Domain: domain, Authority: l.url})
	return l.client(t, token)
}

func refused(t *testing.T, err error, code api.Code, texts ...string) {
	t.Helper()
	if err == nil || fail.CodeOf(err) != code {
		t.Errorf("%v [%s], want %s", err, fail.CodeOf(err), code)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v does not say %q", err, text)
		}
	}
}

func TestVaultsAreManaged(t *testing.T) {
	c := contoso(t)
	made, err := c.CreateVault(ctx, cmdlet.Vault{Name: "Contoso-O365EX-NA-VaultA1", ResourceGroup: "RG-1", Location: "West US 2", SKU: "premium", PurgeProtection: true})
	if err != nil {
		t.Fatal(err)
	}
	if made.Name != "Contoso-O365EX-NA-VaultA1" || made.ResourceGroup != "RG-1" || made.Location != "westus2" || made.SKU != "premium" ||
		!made.PurgeProtection || made.RetentionDays != 90 || !strings.HasPrefix(made.URI, "https://Contoso-O365EX-NA-VaultA1."+domain) || len(made.Access) != 1 {
		t.Errorf("made %+v", made)
	}
	if _, err := c.CreateVault(ctx, cmdlet.Vault{Name: "second", ResourceGroup: "rg", Location: "westus", SKU: "standard"}); err != nil {
		t.Error(err)
	}
	_, err = c.CreateVault(ctx, cmdlet.Vault{Name: "CONTOSO-O365EX-NA-VaultA1", ResourceGroup: "other", Location: "westus", SKU: "premium"})
	refused(t, err, api.AlreadyExists, "CONTOSO-O365EX-NA-VaultA1")
	_, err = c.CreateVault(ctx, cmdlet.Vault{Name: "a.b", ResourceGroup: "rg", Location: "westus", SKU: "premium"})
	refused(t, err, api.InvalidArgument, `"a.b" is not a valid name of a vault`)
	all, err := c.ListVaults(ctx)
	if err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	_, err = c.ShowVault(ctx, "unknown")
	refused(t, err, api.NotFound, `vault "unknown" does not exist`)

	if err := c.SetAccess(ctx, "second", cmdlet.Access{Principal: exchange, Keys: []string{"wrapKey", "unwrapKey", "get"}}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetAccess(ctx, "SECOND", cmdlet.Access{Principal: exchange, Keys: []string{"get"}}); err != nil {
		t.Fatal(err)
	}
	if v, err := c.ShowVault(ctx, "second"); err != nil || fmt.Sprint(find(v, exchange)) != "[get]" {
		t.Errorf("%+v, %v", v, err)
	}
	if err := c.SetAccess(ctx, "second", cmdlet.Access{Principal: exchange}); err != nil {
		t.Fatal(err)
	}
	if v, err := c.ShowVault(ctx, "second"); err != nil || find(v, exchange) != nil {
		t.Errorf("%+v, %v", v, err)
	}
	refused(t, c.SetAccess(ctx, "unknown", cmdlet.Access{Principal: exchange}), api.NotFound)
	refused(t, c.SetAccess(ctx, "second", cmdlet.Access{Principal: "99999999-9999-9999-9999-999999999999", Keys: []string{"get"}}), api.InvalidArgument, "99999999-9999")
}

func find(v cmdlet.Vault, principal string) []string {
	for _, a := range v.Access {
		if a.Principal == principal {
			return a.Keys
		}
	}
	return nil
}

func TestKeysHaveVersions(t *testing.T) {
	c := contoso(t)
	for _, name := range []string{"Contoso-A", "contoso-b"} {
		if _, err := c.CreateVault(ctx, cmdlet.Vault{Name: name, ResourceGroup: "rg", Location: "westus", SKU: "premium"}); err != nil {
			t.Fatal(err)
		}
	}
	enabled, past, end := true, time.Date(2016, 12, 27, 0, 1, 0, 0, time.UTC), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	first, err := c.CreateKey(ctx, "contoso-a", "Key001", cmdlet.KeySpec{Type: "RSA-HSM", Size: 2048, Operations: []string{"wrapKey", "unwrapKey"}, Enabled: &enabled, NotBefore: &past})
	if err != nil {
		t.Fatal(err)
	}
	if first.Vault != "Contoso-A" || first.Name != "Key001" || len(first.Version) != 32 || first.Type != "RSA-HSM" || first.Size != 2048 || !first.Enabled ||
		strings.Join(first.Operations, " ") != "wrapKey unwrapKey" || !first.NotBefore.Equal(past) || first.Expires != nil || first.RecoveryLevel == "" ||
		!strings.HasSuffix(first.ID, "/keys/Key001/"+first.Version) {
		t.Errorf("first %+v", first)
	}
	second, err := c.CreateKey(ctx, "Contoso-A", "Key001", cmdlet.KeySpec{Type: "EC"})
	if err != nil || second.Version == first.Version || second.Curve != "P-256" || second.Size != 0 {
		t.Fatalf("second %+v, %v", second, err)
	}
	versions, err := c.ListKeyVersions(ctx, "Contoso-A", "Key001")
	if err != nil || len(versions) != 2 || versions[0].Version != second.Version || versions[1].Version != first.Version {
		t.Errorf("versions %+v, %v", versions, err)
	}
	if newest, err := c.ShowKey(ctx, "Contoso-A", "key001", ""); err != nil || newest.Version != second.Version {
		t.Errorf("newest %+v, %v", newest, err)
	}
	disabled := false
	changed, err := c.UpdateKey(ctx, "Contoso-A", "Key001", first.Version, cmdlet.KeySpec{Enabled: &disabled, Expires: &end})
	if err != nil || changed.Enabled || !changed.Expires.Equal(end) || !changed.NotBefore.Equal(past) || len(changed.Operations) != 2 {
		t.Errorf("changed %+v, %v", changed, err)
	}
	if keys, err := c.ListKeys(ctx, "Contoso-A"); err != nil || len(keys) != 1 || keys[0].Name != "Key001" {
		t.Errorf("keys %+v, %v", keys, err)
	}
	backup, err := c.BackupKey(ctx, "Contoso-A", "Key001")
	if err != nil {
		t.Fatal(err)
	}
	if restored, err := c.RestoreKey(ctx, "contoso-b", backup); err != nil || restored.Vault != "contoso-b" || restored.Version != second.Version {
		t.Errorf("restored %+v, %v", restored, err)
	}
	_, err = c.RestoreKey(ctx, "contoso-b", backup)
	refused(t, err, api.Conflict, "Key001")
	if _, err := c.RemoveKey(ctx, "Contoso-A", "Key001"); err != nil {
		t.Fatal(err)
	}
	_, err = c.ShowKey(ctx, "Contoso-A", "Key001", "")
	refused(t, err, api.NotFound, `key "Key001" does not exist in vault "Contoso-A"`)
	if _, err := c.RecoverKey(ctx, "Contoso-A", "Key001"); err != nil {
		t.Fatal(err)
	}
	if back, err := c.ShowKey(ctx, "Contoso-A", "Key001", first.Version); err != nil || back.Size != 2048 {
		t.Errorf("back %+v, %v", back, err)
	}
	_, err = c.ShowKey(ctx, "unknown", "Key001", "")
	refused(t, err, api.NotFound, "unknown")
	_, err = c.CreateKey(ctx, "Contoso-A", "bad_name!", cmdlet.KeySpec{Type: "RSA"})
	refused(t, err, api.InvalidArgument)
}

func TestTokenIsSentOnlyToHostsUnderTheVaultDomain(t *testing.T) {
	for _, vault := range []string{"evil.com/", "evil.example.com#", "a@evil", "evil.com:443", "..", "x", "-ab", "a/b/c"} {
		l := startServer(t, http.NotFoundHandler())
		_, err := l.client(t, "secret").ShowKey(ctx, vault, "k", "")
		refused(t, err, api.InvalidArgument, "is not a valid name of a vault")
		if len(l.tokens) > 0 {
			t.Errorf("%s: %v got the token", vault, l.tokens)
		}
	}
	challenge := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			return false
		}
		_, port, _ := net.SplitHostPort(r.Host)
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization="https://127.0.0.1:%s/tenant", resource="https://%s:%s"`, port, domain, port))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	redirecting := startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !challenge(w, r) {
			http.Redirect(w, r, "https://evil.example.com/keys/k", http.StatusTemporaryRedirect)
		}
	}))
	_, err := redirecting.client(t, "secret").ShowKey(ctx, "contoso", "k", "")
	refused(t, err, api.VaultUnavailable, "key k in vault contoso: Temporary Redirect")
	paging := startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !challenge(w, r) {
			fmt.Fprint(w, `{"value":[],"nextLink":"https://evil.example.com/keys"}`)
		}
	}))
	_, err = paging.client(t, "secret").ListKeys(ctx, "contoso")
	refused(t, err, api.VaultUnavailable, "neither the server nor one of its vaults")
	for _, l := range []*lent{redirecting, paging} {
		for host := range l.tokens {
			if !strings.HasPrefix(host, "contoso."+domain+":") {
				t.Errorf("%s got the token", host)
			}
		}
		if len(l.tokens) != 1 {
			t.Errorf("%v", l.tokens)
		}
	}
}

func TestMalformedAnswersAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter, port string)
		code   api.Code
		text   string
	}{
		"a challenge without a tenant, on which the official client panics": {func(w http.ResponseWriter, port string) {
			w.Header().Set("WWW-Authenticate", `Bearer authorization="https://host", resource="https://`+domain+":"+port+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		}, api.VaultUnavailable, "the response is not one of a key vault"},
		"a challenge for another resource": {func(w http.ResponseWriter, port string) {
			w.Header().Set("WWW-Authenticate", `Bearer authorization="https://host/tenant", resource="https://vault.example.com"`)
			w.WriteHeader(http.StatusUnauthorized)
		}, api.VaultUnavailable, "vault.example.com"},
		"no challenge":   {func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusUnauthorized) }, api.Unauthenticated, "Unauthorized"},
		"a broken vault": {func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusBadGateway) }, api.VaultUnavailable, "Bad Gateway"},
		"no JSON":        {func(w http.ResponseWriter, _ string) { fmt.Fprint(w, "<html>") }, api.VaultUnavailable, ""},
		"a long error": {func(w http.ResponseWriter, _ string) {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(w, `{"error":{"code":"x","message":"%s"}}`, strings.Repeat("m", 9000))
		}, api.VaultUnavailable, "mmm…"},
	} {
		l := startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, port, _ := net.SplitHostPort(r.Host)
			test.answer(w, port)
		}))
		_, err := l.client(t, "secret").ShowKey(ctx, "contoso", "k", "")
		if fail.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.text) || len(err.Error()) > 2000 {
			t.Errorf("%s: %.300v [%s]", name, err, fail.CodeOf(err))
		}
	}
}

func TestErrorNamesAnUnavailableServer(t *testing.T) {
	c, err := vaults.New(vaults.Options{URL: "https://127.0.0.1:1", Domain: domain, Token: "secret", HTTP: &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: fmt.Errorf("connection refused")}
		}}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.ListVaults(ctx)
	refused(t, err, api.VaultUnavailable, "subscriptions: cannot be reached", "connection refused")
	_, err = c.ShowKey(ctx, "contoso", "k", "")
	refused(t, err, api.VaultUnavailable, "key k in vault contoso: cannot be reached")
	if strings.Contains(fmt.Sprintf("%v %+v %#v", c, c, c), "secret") {
		t.Error("the token is printed")
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.ListVaults(ended); err != context.Canceled {
		t.Errorf("%v", err)
	}
}

func TestInvalidOptionsAreRefused(t *testing.T) {
	for _, o := range []vaults.Options{{URL: "http://host", Domain: domain}, {URL: "host", Domain: domain}, {URL: "https://host"}, {URL: "https://host", Domain: "a/b"}} {
		o.HTTP = http.DefaultClient
		_, err := vaults.New(o)
		refused(t, err, api.InvalidArgument)
	}
}

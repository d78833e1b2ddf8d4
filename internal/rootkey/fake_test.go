package rootkey_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"keyroll/internal/envelope"
	"keyroll/internal/rootkey"
)

const (
	domain     = "vault.localhost"
	tenantGUID = "11111111-2222-3333-4444-555555555555"
	version1   = "0123456789abcdef0123456789abcdef"
	version2   = "fedcba9876543210fedcba9876543210"
)

// fakeVault is a small vault and its authority on one TLS listener, like keyroll's own. Every
// vault name has one RSA key "k1" with two versions.
type fakeVault struct {
	*httptest.Server
	ca *x509.CertPool

	mu         sync.Mutex
	key        map[string]*rsa.PrivateKey
	attributes map[string]any
	secrets    map[string]string // client id to secret
	requests   []string          // method and path, in order
	vault      http.HandlerFunc  // answers authorised requests in the vault's place
	challenge  string            // replaces the challenge
	authority  http.HandlerFunc  // answers in the authority's place
}

var testKeys = sync.OnceValue(func() [2]*rsa.PrivateKey {
	var keys [2]*rsa.PrivateKey
	for i := range keys {
		keys[i], _ = rsa.GenerateKey(rand.Reader, 2048)
	}
	return keys
})

func newFakeVault(t *testing.T) *fakeVault {
	t.Helper()
	w := &fakeVault{
		key:        map[string]*rsa.PrivateKey{version1: testKeys()[0], version2: testKeys()[1]},
		attributes: map[string]any{"enabled": true, "created": 1700000000, "recoveryLevel": "Recoverable+Purgeable"},
		secrets:    map[string]string{"id-exchange": "secret-exchange", "id-sharepoint": "secret-sharepoint"},
	}
	w.Server = httptest.NewUnstartedServer(w)
	w.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	w.TLS, w.ca = certificate(t, "*."+domain, "*.vault.azure.net", "management.azure.com")
	w.StartTLS()
	t.Cleanup(w.Close)
	return w
}

// certificate returns a TLS configuration for names and 127.0.0.1, and who signed it.
func certificate(t *testing.T, names ...string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

func (w *fakeVault) address() string { return w.Listener.Addr().String() }

// dialTo connects every dial to the listener at an address.
func dialTo(address func() string) func(ctx context.Context, network, _ string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address())
	}
}

func (w *fakeVault) port() string {
	_, port, _ := net.SplitHostPort(w.address())
	return port
}

// config is the configuration that keyroll would use for this vault.
func (w *fakeVault) config() rootkey.Config {
	return rootkey.Config{
		VaultDomain: domain,
		Port:        w.port(),
		Dial:        dialTo(w.address),
		RootCAs:     w.ca,
		Authority:   w.URL,
		Tenant:      func(context.Context, int64) (string, error) { return tenantGUID, nil },
		Secret: func(_ context.Context, _ int64, id rootkey.Identity) (string, string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			clientID := "id-" + string(id)
			return clientID, w.secrets[clientID], nil
		},
	}
}

func (w *fakeVault) client(t *testing.T) *rootkey.Client {
	return newClient(t, w.config())
}

func newClient(t *testing.T, config rootkey.Config) *rootkey.Client {
	t.Helper()
	c := rootkey.New(config)
	t.Cleanup(c.Close)
	return c
}

// set changes the vault while it may be serving.
func (w *fakeVault) set(f func(w *fakeVault)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
}

// count returns how many requests began with prefix.
func (w *fakeVault) count(prefix string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

func (w *fakeVault) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	host, _, _ := strings.Cut(r.Host, ":")
	name, of, _ := strings.Cut(host, ".")
	isVault := of == domain || of == "vault.azure.net"
	authorised := r.Header.Get("Authorization") != ""
	w.mu.Lock()
	label := r.Method + " " + r.URL.Path
	if isVault && authorised {
		label = "vault " + label
	}
	w.requests = append(w.requests, label)
	vault, authority, challenge := w.vault, w.authority, w.challenge
	w.mu.Unlock()
	switch {
	case !isVault && authority != nil:
		authority(rw, r)
	case !isVault:
		w.serveAuthority(rw, r)
	case !authorised:
		if body, _ := io.ReadAll(r.Body); len(body) > 0 {
			http.Error(rw, "a body before the challenge", http.StatusTeapot)
			return
		}
		if challenge == "" {
			challenge = fmt.Sprintf(`Bearer authorization="%s/%s", resource="https://%s:%s"`, w.URL, tenantGUID, of, w.port())
		}
		rw.Header().Set("WWW-Authenticate", challenge)
		rw.WriteHeader(http.StatusUnauthorized)
	case vault != nil:
		vault(rw, r)
	default:
		w.serveKey(rw, r, name)
	}
}

func (w *fakeVault) serveAuthority(rw http.ResponseWriter, r *http.Request) {
	base := w.URL + "/" + tenantGUID
	switch r.URL.Path {
	case "/" + tenantGUID + "/v2.0/.well-known/openid-configuration":
		answer(rw, 200, map[string]any{
			"token_endpoint": base + "/oauth2/v2.0/token", "authorization_endpoint": base + "/oauth2/v2.0/authorize",
			"issuer": base + "/v2.0", "jwks_uri": base + "/discovery/v2.0/keys",
		})
	case "/" + tenantGUID + "/oauth2/v2.0/token":
		w.mu.Lock()
		want := w.secrets[r.PostFormValue("client_id")]
		w.mu.Unlock()
		scope, _, _ := strings.Cut(r.PostFormValue("scope"), " ")
		if r.PostFormValue("grant_type") != "client_credentials" || want == "" || r.PostFormValue("client_secret") != want || scope != "https://"+domain+":"+w.port()+"/.default" {
			answer(rw, 401, map[string]any{"error": "invalid_client", "error_description": "no"})
			return
		}
		answer(rw, 200, map[string]any{"token_type": "Bearer", "expires_in": 3600, "access_token": "token of " + r.PostFormValue("client_id")})
	default:
		http.NotFound(rw, r)
	}
}

func (w *fakeVault) serveKey(rw http.ResponseWriter, r *http.Request, vault string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	part := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(part) < 2 || part[0] != "keys" || part[1] != "k1" || r.URL.Query().Get("api-version") == "" {
		answerError(rw, 404, "KeyNotFound", "", "no such key")
		return
	}
	version, operation := version2, ""
	if len(part) > 2 {
		version = part[2]
	}
	if len(part) > 3 {
		operation = part[3]
	}
	key := w.key[version]
	if key == nil {
		answerError(rw, 404, "KeyNotFound", "", "no such version")
		return
	}
	kid := "https://" + vault + "." + domain + "/keys/k1/" + version
	if r.Method == http.MethodGet && operation == "" {
		answer(rw, 200, map[string]any{"attributes": w.attributes, "key": map[string]any{
			"kid": kid, "kty": "RSA-HSM", "key_ops": []string{"wrapKey", "unwrapKey"},
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": "AQAB",
		}})
		return
	}
	var in struct{ Alg, Value string }
	err := json.NewDecoder(r.Body).Decode(&in)
	value, decodeErr := base64.RawURLEncoding.DecodeString(in.Value)
	if err != nil || decodeErr != nil || in.Alg != "RSA-OAEP-256" || r.Method != http.MethodPost {
		answerError(rw, 400, "BadParameter", "", "bad request")
		return
	}
	var out []byte
	switch operation {
	case "wrapkey":
		out, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, value, nil)
	case "unwrapkey":
		out, err = rsa.DecryptOAEP(sha256.New(), nil, key, value, nil)
	}
	if err != nil || out == nil {
		answerError(rw, 400, "BadParameter", "", "it cannot be decrypted")
		return
	}
	answer(rw, 200, map[string]any{"kid": kid, "value": base64.RawURLEncoding.EncodeToString(out)})
}

func answer(rw http.ResponseWriter, status int, body any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	json.NewEncoder(rw).Encode(body)
}

func answerError(rw http.ResponseWriter, status int, code, inner, message string) {
	e := map[string]any{"code": code, "message": message}
	if inner != "" {
		e["innererror"] = map[string]any{"code": inner}
	}
	answer(rw, status, map[string]any{"error": e})
}

func k1(version string) envelope.KeyVersion {
	return envelope.KeyVersion{Vault: "Contoso-A", Key: "k1", Version: version}
}

package vault_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
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

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/google/uuid"

	"keyroll/internal/access"
	"keyroll/internal/seal"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
	"keyroll/internal/vault"
)

const domain = "vault.localhost"

// testServer is a running server with two tenants and a clock that tests move.
type testServer struct {
	t      testing.TB
	db     *store.DB
	dir    *access.Directory
	vaults *vault.Vaults
	server *httptest.Server
	http   *http.Client
	log    *lockedBuffer
	mu     sync.Mutex
	ahead  time.Duration
}

// tenant is one tenant with its admin.
type tenant struct {
	*testServer
	access.Tenant
	admin        access.Principal
	token        string // the admin's
	subscription string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (w *testServer) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

func (w *testServer) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += d
}

func newTestServer(t testing.TB, db *store.DB) *testServer {
	t.Helper()
	ctx := context.Background()
	w := &testServer{t: t, db: db, log: &lockedBuffer{}}
	s, err := seal.Open(ctx, "file://"+filepath.Join(t.TempDir(), "seal"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(w.log, nil))
	if w.dir, err = access.Open(ctx, access.Config{DB: db, Seal: s, VaultDomain: domain, Now: w.now, Logger: log}); err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewUnstartedServer(nil)
	address := w.server.Listener.Addr().String()
	w.vaults = vault.Open(vault.Config{DB: db, Seal: s, Directory: w.dir, Logger: log, Now: w.now, Domain: domain, Authority: "https://" + address})
	login, management, data := w.dir.Handler(), w.vaults.Management(), w.vaults.Handler()
	w.server.Config.Handler = w.askAgain(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case w.vaults.Serves(r.Host):
			data.ServeHTTP(rw, r)
		case strings.HasPrefix(r.URL.Path, "/subscriptions"):
			management.ServeHTTP(rw, r)
		default:
			login.ServeHTTP(rw, r)
		}
	}))
	certificate, roots := certify(t)
	w.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	w.http = &http.Client{Transport: transport}
	return w
}

// certify returns a certificate for the vaults and 127.0.0.1, and who signed it.
func certify(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"*." + domain, "*.managedhsm.localhost", "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func (w *testServer) tenant(name string) *tenant {
	w.t.Helper()
	ctx := context.Background()
	n := &tenant{testServer: w}
	err := w.db.InTx(ctx, func(tx *store.Tx) (err error) {
		n.Tenant, err = w.dir.CreateTenant(ctx, tx, name)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if n.token, err = w.dir.AdminToken(ctx, n.ID); err != nil {
		w.t.Fatal(err)
	}
	if n.admin, err = w.dir.Authenticate(ctx, n.token); err != nil {
		w.t.Fatal(err)
	}
	var answer struct {
		Value []struct{ SubscriptionID, TenantID, State string }
	}
	status := n.call("GET", w.server.URL+"/subscriptions?api-version=2022-12-01", "", &answer)
	if status != http.StatusOK || len(answer.Value) != 1 || answer.Value[0].TenantID != n.GUID.String() {
		w.t.Fatalf("subscriptions: %d %+v", status, answer)
	}
	n.subscription = answer.Value[0].SubscriptionID
	return n
}

// contoso is a server of one tenant with the vault contoso-A.
func contoso(t testing.TB, db *store.DB) *tenant {
	t.Helper()
	n := newTestServer(t, db).tenant("contoso")
	n.createVault("contoso-A", nil)
	return n
}

func (n *tenant) createVault(name string, change func(*armkeyvault.VaultProperties)) armkeyvault.Vault {
	n.t.Helper()
	v, err := n.putVault(name, change)
	if err != nil {
		n.t.Fatal(err)
	}
	return v
}

func (n *tenant) putVault(name string, change func(*armkeyvault.VaultProperties)) (armkeyvault.Vault, error) {
	return n.putVaultIn(name, "eastus", change)
}

// createVaultIn makes a vault in a region, whose keys the admin may use.
func (n *tenant) createVaultIn(name, location string) {
	n.t.Helper()
	if _, err := n.putVaultIn(name, location, nil); err != nil {
		n.t.Fatal(err)
	}
}

func (n *tenant) putVaultIn(name, location string, change func(*armkeyvault.VaultProperties)) (armkeyvault.Vault, error) {
	n.t.Helper()
	p := armkeyvault.VaultCreateOrUpdateParameters{
		Location: to.Ptr(location),
		Properties: &armkeyvault.VaultProperties{
			TenantID: to.Ptr(n.GUID.String()),
			SKU:      &armkeyvault.SKU{Family: to.Ptr(armkeyvault.SKUFamilyA), Name: to.Ptr(armkeyvault.SKUNamePremium)},
		},
	}
	if change != nil {
		change(p.Properties)
	}
	poller, err := n.management().BeginCreateOrUpdate(context.Background(), "rg1", name, p, nil)
	if err != nil {
		return armkeyvault.Vault{}, err
	}
	answer, err := poller.PollUntilDone(context.Background(), nil)
	return answer.Vault, err
}

// grant gives a service principal permissions to keys by the management client.
func (n *tenant) grant(vaultName string, id uuid.UUID, permissions ...armkeyvault.KeyPermissions) {
	n.t.Helper()
	n.policies(armkeyvault.AccessPolicyUpdateKindReplace, vaultName, id, permissions...)
}

func (n *tenant) policies(kind armkeyvault.AccessPolicyUpdateKind, vaultName string, id uuid.UUID, permissions ...armkeyvault.KeyPermissions) {
	n.t.Helper()
	entry := &armkeyvault.AccessPolicyEntry{
		TenantID: to.Ptr(n.GUID.String()), ObjectID: to.Ptr(id.String()),
		Permissions: &armkeyvault.Permissions{Keys: to.SliceOfPtrs(permissions...)},
	}
	_, err := n.management().UpdateAccessPolicy(context.Background(), "rg1", vaultName, kind,
		armkeyvault.VaultAccessPolicyParameters{Properties: &armkeyvault.VaultAccessPolicyProperties{
			AccessPolicies: []*armkeyvault.AccessPolicyEntry{entry},
		}}, nil)
	if err != nil {
		n.t.Fatal(err)
	}
}

func (w *testServer) clientOptions() azcore.ClientOptions {
	return azcore.ClientOptions{
		Transport: w.http, Retry: policy.RetryOptions{MaxRetries: -1},
		Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: w.server.URL,
			Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
				cloud.ResourceManager: {Audience: w.server.URL, Endpoint: w.server.URL},
			},
		},
	}
}

func (n *tenant) credential(id uuid.UUID, secret string) azcore.TokenCredential {
	n.t.Helper()
	c, err := azidentity.NewClientSecretCredential(n.GUID.String(), id.String(), secret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: n.clientOptions(), DisableInstanceDiscovery: true})
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

func (n *tenant) management() *armkeyvault.VaultsClient {
	n.t.Helper()
	c, err := armkeyvault.NewVaultsClient(n.subscription, n.credential(n.admin.ID, n.token),
		&arm.ClientOptions{ClientOptions: n.clientOptions(), DisableRPRegistration: true})
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

func (w *testServer) url(vaultName string) string {
	_, port, _ := net.SplitHostPort(w.server.Listener.Addr().String())
	return "https://" + vaultName + "." + domain + ":" + port
}

func (n *tenant) keysWith(vaultName string, c azcore.TokenCredential) *azkeys.Client {
	n.t.Helper()
	client, err := azkeys.NewClient(n.url(vaultName), c, &azkeys.ClientOptions{ClientOptions: n.clientOptions()})
	if err != nil {
		n.t.Fatal(err)
	}
	return client
}

// keys returns the official client, logged in as the admin.
func (n *tenant) keys(vaultName string) *azkeys.Client {
	n.t.Helper()
	return n.keysWith(vaultName, n.credential(n.admin.ID, n.token))
}

// keysAs returns the official client, logged in as a principal of the service.
func (n *tenant) keysAs(vaultName string, id uuid.UUID) *azkeys.Client {
	n.t.Helper()
	secret, err := n.dir.ClientSecret(context.Background(), n.ID, id)
	if err != nil {
		n.t.Fatal(err)
	}
	return n.keysWith(vaultName, n.credential(id, secret))
}

// call makes a plain request with the admin's token and reads the JSON answer.
func (n *tenant) call(method, url, body string, answer any) int {
	n.t.Helper()
	status, _ := n.callWith(method, url, body, n.token, answer)
	return status
}

func (n *tenant) callWith(method, url, body, token string, answer any) (int, http.Header) {
	n.t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := n.http.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	if answer != nil && len(text) > 0 {
		if err := json.Unmarshal(text, answer); err != nil {
			n.t.Fatalf("%s %s: %q: %v", method, url, text, err)
		}
	}
	return response.StatusCode, response.Header
}

// problem is the body of a refusal.
type problem struct {
	Error struct {
		Code, Message string
		InnerError    struct{ Code string }
	}
}

// refused checks how an official client saw its call refused.
func refused(t testing.TB, err error, status int, code, inner string, words ...string) {
	t.Helper()
	var r *azcore.ResponseError
	if !errors.As(err, &r) {
		t.Errorf("got %v, want %d %s", err, status, code)
		return
	}
	body, _ := io.ReadAll(r.RawResponse.Body)
	var p problem
	json.Unmarshal(body, &p)
	if r.StatusCode != status || p.Error.Code != code || p.Error.InnerError.Code != inner {
		t.Errorf("got %d %s, want %d %s %s", r.StatusCode, body, status, code, inner)
	}
	for _, word := range words {
		if !strings.Contains(p.Error.Message, word) {
			t.Errorf("message %q does not name %q", p.Error.Message, word)
		}
	}
}

// ec are parameters of a key that is made quickly.
func ec() azkeys.CreateKeyParameters {
	return azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeEC), Curve: to.Ptr(azkeys.CurveNameP256)}
}

func rsa2048() azkeys.CreateKeyParameters {
	return azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeRSA), KeySize: to.Ptr(int32(2048))}
}

func create(t testing.TB, c *azkeys.Client, name string, p azkeys.CreateKeyParameters) azkeys.KeyBundle {
	t.Helper()
	answer, err := c.CreateKey(context.Background(), name, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer.KeyBundle
}

func sqlite(t testing.TB) *store.DB { return storetest.One(t) }

func decodeJSON(t testing.TB, r io.Reader, into any) {
	t.Helper()
	if err := json.NewDecoder(r).Decode(into); err != nil {
		t.Fatal(err)
	}
}

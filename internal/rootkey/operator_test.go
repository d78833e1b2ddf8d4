package rootkey_test

import (
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/internal/rootkey"
)

func TestOnlyMicrosoftsAuthoritiesAreAccepted(t *testing.T) {
	for authority, want := range map[string]bool{
		"":                                   true,
		"https://login.microsoftonline.com/": true,
		"https://login.chinacloudapi.cn":     true,
		"https://127.0.0.1:8443":             false,
		"https://login.microsoftonline.com.evil.example": false,
		"%zz": false,
	} {
		if got := rootkey.MicrosoftAuthority(authority); got != want {
			t.Errorf("%q: %v", authority, got)
		}
	}
}

// operatorVault is a fake vault of the operator, trusted by SSL_CERT_FILE.
func operatorVault(t *testing.T, handler http.HandlerFunc) *rootkey.OperatorVault {
	server := httptest.NewUnstartedServer(handler)
	server.TLS, _ = certificate(t, "*."+domain)
	server.StartTLS()
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.TLS.Certificates[0].Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("AZURE_TENANT_ID", "11111111-2222-3333-4444-555555555555")
	t.Setenv("AZURE_CLIENT_ID", "22222222-2222-3333-4444-555555555555")
	t.Setenv("AZURE_CLIENT_SECRET", "secret")
	t.Setenv("AZURE_AUTHORITY_HOST", server.URL)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	v, err := rootkey.OpenOperatorVault("https://ours." + domain + ":" + port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func read(t *testing.T, v *rootkey.OperatorVault) error {
	return v.Call(t.Context(), func(ctx context.Context, c *azkeys.Client) error {
		_, err := c.GetKey(ctx, "k", "", nil)
		return err
	})
}

func TestAMalformedChallengeOfTheOperatorsVaultFailsOnlyOneCall(t *testing.T) {
	asked := 0
	v := operatorVault(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://host", resource="https://`+strings.TrimPrefix(r.Host, "ours.")+`"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	for range 2 {
		if err := read(t, v); rootkey.Classify(err) != rootkey.MalformedChallenge {
			t.Errorf("got %v", err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

// The challenge names a resource, and the token for it must not go elsewhere.
func TestAChallengeForAnotherResourceGetsNoToken(t *testing.T) {
	tokens := 0
	v := operatorVault(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "oauth2") || strings.Contains(r.URL.Path, "openid") {
			tokens++
		}
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://`+r.Host+`/11111111-2222-3333-4444-555555555555", resource="https://vault.azure.net"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	if err := read(t, v); err == nil || tokens > 0 {
		t.Errorf("%d requests for a token, %v", tokens, err)
	}
}

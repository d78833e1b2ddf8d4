package rootkey_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"go.uber.org/goleak"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/rootkey"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWrapAndUnwrapUseExactlyTheNamedVersion(t *testing.T) {
	w := newFakeVault(t)
	c := w.client(t)
	ctx := t.Context()
	bundle := bytes.Repeat([]byte{7}, 64)
	wrapped, err := c.Wrap(ctx, 1, rootkey.Exchange, k1(version1), bundle)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Unwrap(ctx, 1, rootkey.Exchange, k1(version1), wrapped)
	if err != nil || !bytes.Equal(got, bundle) {
		t.Fatalf("unwrap: %x, %v", got, err)
	}
	if _, err := c.Unwrap(ctx, 1, rootkey.Exchange, k1(version2), wrapped); !fail.Is(err, api.Unavailable) {
		t.Errorf("unwrap with another version: %v", err)
	}
	for _, call := range []func(context.Context, int64, rootkey.Identity, envelope.KeyVersion, []byte) ([]byte, error){c.Wrap, c.Unwrap} {
		if _, err := call(ctx, 1, rootkey.Exchange, k1(""), bundle); !fail.Is(err, api.InvalidArgument) {
			t.Errorf("without a version: %v", err)
		}
	}
}

func TestKeyWithoutVersionIsTheNewest(t *testing.T) {
	w := newFakeVault(t)
	w.attributes["nbf"], w.attributes["exp"] = 1600000000, 1900000000
	c := w.client(t)
	info, err := c.Key(t.Context(), 1, rootkey.SharePoint, k1(""))
	if err != nil {
		t.Fatal(err)
	}
	if info.KeyVersion != k1(version2) || info.Type != "RSA-HSM" || info.Bits != 2048 || !info.Enabled || info.RecoveryLevel != "Recoverable+Purgeable" ||
		info.NotBefore.Unix() != 1600000000 || info.Expires.Unix() != 1900000000 || info.Created.Unix() != 1700000000 || strings.Join(info.Ops, " ") != "wrapKey unwrapKey" {
		t.Errorf("got %+v", info)
	}
	guid := k1("01234567-89AB-cdef-0123-456789abcdef")
	if info, err = c.Key(t.Context(), 1, rootkey.SharePoint, guid); err != nil || info.KeyVersion != k1(version1) {
		t.Errorf("by GUID: %+v, %v", info.KeyVersion, err)
	}
}

func TestOneTokenIsUsedForAllCallsOfAPrincipalToAVault(t *testing.T) {
	w := newFakeVault(t)
	c := w.client(t)
	for _, vault := range []string{"contoso-a", "CONTOSO-A", "contoso-b"} {
		for _, id := range []rootkey.Identity{rootkey.Exchange, rootkey.SharePoint} {
			for range 3 {
				if _, err := c.Key(t.Context(), 1, id, envelope.KeyVersion{Vault: vault, Key: "k1"}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if n := w.count("POST /" + tenantGUID + "/oauth2"); n != 4 {
		t.Errorf("%d token requests for 2 vaults and 2 principals", n)
	}
	if _, err := c.Key(t.Context(), 2, rootkey.Exchange, k1("")); err != nil {
		t.Fatal(err)
	}
	if n := w.count("POST /" + tenantGUID + "/oauth2"); n != 5 {
		t.Errorf("%d token requests: another tenant shares a token", n)
	}
}

func TestARotatedSecretIsReadAgain(t *testing.T) {
	w := newFakeVault(t)
	config := w.config()
	w.set(func(w *fakeVault) { w.secrets["id-exchange"] = "old" })
	stale := true
	config.Secret = func(ctx context.Context, tenant int64, id rootkey.Identity) (string, string, error) {
		if stale {
			return "id-exchange", "outdated", nil
		}
		return "id-exchange", "old", nil
	}
	c := newClient(t, config)
	_, err := c.Key(t.Context(), 1, rootkey.Exchange, k1(""))
	if rootkey.Classify(err) != rootkey.NoToken || strings.Contains(err.Error(), "outdated") {
		t.Fatalf("with a wrong secret: %v", err)
	}
	stale = false
	if _, err := c.Key(t.Context(), 1, rootkey.Exchange, k1("")); err != nil {
		t.Errorf("with the right one: %v", err)
	}
}

func TestARefusalNamesThePrincipalAndThePermissionItLacks(t *testing.T) {
	w := newFakeVault(t)
	w.vault = func(rw http.ResponseWriter, r *http.Request) {
		answerError(rw, 403, "Forbidden", "ForbiddenByPolicy", "The application 'Exchange' does not have keys unwrapKey permission\r\n\x1b[31mon key vault 'Contoso-A'."+strings.Repeat("x", 5000))
	}
	_, err := w.client(t).Unwrap(t.Context(), 1, rootkey.Exchange, k1(version1), []byte{1})
	if !fail.Is(err, api.VaultDenied) || rootkey.Classify(err) != rootkey.AccessRemoved {
		t.Fatalf("got %v", err)
	}
	_, detail, hint := fail.Public(err)
	want := `unwrap with key "k1" version ` + version1 + ` in vault "Contoso-A": the vault refused the service (403): The application 'Exchange' does not have keys unwrapKey permission [31mon key vault 'Contoso-A'.`
	if !strings.HasPrefix(detail, want) || len(detail) > 600 {
		t.Errorf("detail %q", detail)
	}
	if want := "Set-AzKeyVaultAccessPolicy -VaultName Contoso-A -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName id-exchange"; hint != want {
		t.Errorf("hint %q", hint)
	}
}

func TestCancellationIsNotAFailureOfTheVault(t *testing.T) {
	w := newFakeVault(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.vault = func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}
	_, err := w.client(t).Key(ctx, 1, rootkey.Exchange, k1(""))
	if !errors.Is(err, context.Canceled) || fail.Is(err, api.VaultUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestShortFailuresAreRetriedAndLongWaitsAreNot(t *testing.T) {
	w := newFakeVault(t)
	c := w.client(t)
	w.vault = func(rw http.ResponseWriter, r *http.Request) {
		w.set(func(w *fakeVault) { w.vault = nil })
		answerError(rw, 429, "Throttled", "", "slow down")
	}
	if _, err := c.Key(t.Context(), 1, rootkey.Exchange, k1("")); err != nil {
		t.Errorf("after one 429: %v", err)
	}
	before := w.count("vault ")
	w.set(func(w *fakeVault) {
		w.vault = func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Retry-After", "30")
			answerError(rw, 429, "Throttled", "", "slow down")
		}
	})
	_, err := c.Key(t.Context(), 1, rootkey.Exchange, k1(""))
	if rootkey.Classify(err) != rootkey.Throttled || w.count("vault ") != before+1 {
		t.Errorf("told to wait 30 s: %d requests, %v", w.count("vault ")-before, err)
	}
	if rest := fail.RetryAfter(err); rest != 30*time.Second {
		t.Errorf("the caller is told to wait %v", rest)
	}
	w.set(func(w *fakeVault) {
		w.vault = func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			answerError(rw, 503, "ServiceUnavailable", "", "busy")
		}
	})
	_, err = c.Key(t.Context(), 1, rootkey.Exchange, k1(""))
	if rest := fail.RetryAfter(err); rest < 30*time.Minute || rest > time.Hour {
		t.Errorf("told to wait until in an hour: the caller is told to wait %v", rest)
	}
}

func TestAMalformedChallengeIsLoggedAndAffectsNoLaterCall(t *testing.T) {
	w := newFakeVault(t)
	var log bytes.Buffer
	config := w.config()
	config.Logger = slog.New(slog.NewTextHandler(&log, nil))
	c := newClient(t, config)
	w.set(func(w *fakeVault) {
		w.challenge = `Bearer authorization="https://host", resource="https://` + domain + ":" + w.port() + `"`
	})
	_, err := c.Key(t.Context(), 1, rootkey.Exchange, k1(""))
	if !fail.Is(err, api.Unavailable) || !strings.Contains(err.Error(), "answered with a malformed challenge") {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(log.String(), "parseTenant") {
		t.Errorf("the log does not say where: %s", log.String())
	}
	w.set(func(w *fakeVault) { w.challenge = "" })
	if _, err := c.Key(t.Context(), 1, rootkey.Exchange, k1("")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A vault, or the authority's own documents, may name any host they like.
func TestTheSecretIsSentOnlyToKeyrollsOwnListener(t *testing.T) {
	foreign := newFakeVault(t)
	elsewhere := "https://localhost:" + foreign.port()
	for name, set := range map[string]func(w *fakeVault){
		"challenge of a foreign authority": func(w *fakeVault) {
			w.challenge = `Bearer authorization="` + elsewhere + `/` + tenantGUID + `", resource="https://` + domain + ":" + w.port() + `"`
		},
		"foreign token endpoint": func(w *fakeVault) {
			w.authority = func(rw http.ResponseWriter, r *http.Request) {
				answer(rw, 200, map[string]any{"token_endpoint": elsewhere + "/oauth2/v2.0/token", "authorization_endpoint": elsewhere + "/a", "issuer": elsewhere, "jwks_uri": elsewhere + "/k"})
			}
		},
		"redirected token request": func(w *fakeVault) {
			w.authority = func(rw http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					w.serveAuthority(rw, r)
					return
				}
				http.Redirect(rw, r, elsewhere+r.URL.Path, http.StatusTemporaryRedirect)
			}
		},
		"redirected request": func(w *fakeVault) {
			w.vault = func(rw http.ResponseWriter, r *http.Request) {
				http.Redirect(rw, r, elsewhere+r.URL.Path, http.StatusTemporaryRedirect)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFakeVault(t)
			w.ca.AddCert(foreign.Certificate()) // as trusted as can be
			set(w)
			_, err := w.client(t).Wrap(t.Context(), 1, rootkey.Exchange, k1(version1), []byte{1})
			if err != nil && !fail.Is(err, api.Unavailable) {
				t.Errorf("got %v", err)
			}
			if n := foreign.count(""); n != 0 {
				t.Errorf("%d requests reached the foreign host: %v", n, foreign.requests)
			}
		})
	}
}

type staticCredential struct{}

func (staticCredential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "azure", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestAnAzureVaultIsReachedWithoutAnyOwnSecret(t *testing.T) {
	w := newFakeVault(t)
	w.challenge = `Bearer authorization="https://login.example/` + tenantGUID + `", resource="https://vault.azure.net"`
	config := w.config()
	config.Tenant, config.Secret = nil, nil // a call would panic
	var dialled string
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled = address
		return new(net.Dialer).DialContext(ctx, network, w.address())
	}
	config.External = &rootkey.External{Dial: dial, RootCAs: w.ca, Credential: staticCredential{}}
	c := newClient(t, config)
	kv, err := c.ParseURI("https://Contoso-A.vault.azure.net/keys/k1")
	if err != nil {
		t.Fatal(err)
	}
	// Without a port the challenge's domain fits, as with the real Azure.
	info, err := c.Key(t.Context(), 1, rootkey.Exchange, kv)
	if err != nil || dialled != "contoso-a.vault.azure.net:443" {
		t.Fatalf("dialled %q: %v", dialled, err)
	}
	if info.KeyVersion != (envelope.KeyVersion{Vault: "https://contoso-a.vault.azure.net", Key: "k1", Version: version2}) {
		t.Errorf("got %+v", info.KeyVersion)
	}
	if c.URI(info.KeyVersion) != "https://contoso-a.vault.azure.net/keys/k1/"+version2 {
		t.Errorf("URI %s", c.URI(info.KeyVersion))
	}

	config.External = &rootkey.External{Dial: dial, Credential: staticCredential{}}
	c = newClient(t, config)
	if _, err := c.Key(t.Context(), 1, rootkey.Exchange, kv); rootkey.Classify(err) != rootkey.NotTrusted {
		t.Errorf("keyroll's CA is trusted for Azure: %v", err)
	}
}

func TestEachAzureCloudHasOneCredential(t *testing.T) {
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
	t.Setenv("AZURE_TENANT_ID", tenantGUID)
	t.Setenv("AZURE_CLIENT_ID", "id")
	t.Setenv("AZURE_CLIENT_SECRET", "secret")
	c := newClient(t, newFakeVault(t).config())
	seen := map[azcore.TokenCredential]bool{}
	for _, authority := range []string{"", "https://login.chinacloudapi.cn/", "", "https://login.chinacloudapi.cn/"} {
		credential, err := c.ExternalCredential(authority)
		if err != nil {
			t.Fatal(err)
		}
		seen[credential] = true
	}
	if len(seen) != 2 {
		t.Errorf("%d credentials for two clouds", len(seen))
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	config := newFakeVault(t).config()
	config.Dial = dialTo(func() string { return "127.0.0.1:1" })
	c := newClient(t, config)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the connection is made, the vault is not asked
	for tenant := range int64(rootkey.MaxConnections + 50) {
		if _, err := c.Key(ctx, tenant, rootkey.Exchange, k1("")); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if n := c.Connections(); n != rootkey.MaxConnections {
		t.Errorf("%d connections are kept", n)
	}
}

func TestTheLoserOfAHedgeIsCancelledAtItsVault(t *testing.T) {
	w := newFakeVault(t)
	arrived, cancelled := make(chan struct{}), make(chan struct{})
	w.vault = func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "contoso-a.") {
			io.Copy(io.Discard, r.Body)
			close(arrived)
			<-r.Context().Done()
			close(cancelled)
			return
		}
		w.serveKey(rw, r, "contoso-b")
	}
	c := w.client(t)
	wrapped, err := c.Wrap(t.Context(), 1, rootkey.SharePoint, envelope.KeyVersion{Vault: "contoso-b", Key: "k1", Version: version2}, []byte("policy key"))
	if err != nil {
		t.Fatal(err)
	}
	unwrap := func(vault string) rootkey.Unwrap {
		return func(ctx context.Context) ([]byte, error) {
			return c.Unwrap(ctx, 1, rootkey.SharePoint, envelope.KeyVersion{Vault: vault, Key: "k1", Version: version2}, wrapped)
		}
	}
	got, which, err := rootkey.Hedged(0)(t.Context(), unwrap("contoso-a"), func(ctx context.Context) ([]byte, error) {
		<-arrived // so that there is a request to cancel
		return unwrap("contoso-b")(ctx)
	})
	if err != nil || which != rootkey.Secondary || string(got) != "policy key" {
		t.Fatalf("%q of %d, %v", got, which, err)
	}
	<-cancelled
}

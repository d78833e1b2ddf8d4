package rootkey_test

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"keyroll/internal/rootkey"
)

// managed makes the authority serve the management of vaults too: two subscriptions, the
// second of which has Contoso-A.
func (w *fakeVault) managed(t *testing.T, change func(vault map[string]any), tokens *[]string) {
	properties := map[string]any{"enableSoftDelete": true, "enablePurgeProtection": true, "accessPolicies": []map[string]any{
		{"objectId": "id-sharepoint", "permissions": map[string]any{"keys": []string{"all"}}},
		{"objectId": "ID-EXCHANGE", "permissions": map[string]any{"keys": []string{"get", "wrapKey"}}},
	}}
	vault := map[string]any{"id": "/subscriptions/S2/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/Contoso-A", "name": "Contoso-A", "location": "eastus", "properties": properties}
	if change != nil {
		change(vault)
	}
	w.authority = func(rw http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case strings.HasSuffix(path, "/oauth2/v2.0/token"):
			answer(rw, 200, map[string]any{"token_type": "Bearer", "expires_in": 3600, "access_token": "token of " + r.PostFormValue("client_id")})
		case !strings.HasPrefix(path, "/subscriptions"):
			w.serveAuthority(rw, r)
		case path == "/subscriptions":
			*tokens = append(*tokens, r.Header.Get("Authorization"))
			answer(rw, 200, map[string]any{"value": []map[string]any{{"subscriptionId": "s1"}, {"subscriptionId": "s2"}}})
		case path == "/subscriptions/s1/providers/Microsoft.KeyVault/vaults":
			answer(rw, 200, map[string]any{"value": []any{}})
		case path == "/subscriptions/s2/providers/Microsoft.KeyVault/vaults":
			answer(rw, 200, map[string]any{"value": []any{map[string]any{"name": "other"}, vault}})
		default:
			http.NotFound(rw, r)
		}
	}
}

func TestVaultIsDescribedByItsManagement(t *testing.T) {
	w := newFakeVault(t)
	var tokens []string
	w.managed(t, nil, &tokens)
	got, err := w.client(t).Describe(t.Context(), 1, rootkey.Exchange, "contoso-a")
	if err != nil {
		t.Fatal(err)
	}
	if got.Subscription != "s2" || got.ResourceGroup != "rg" || got.Location != "eastus" || !got.SoftDelete || !got.PurgeProtection ||
		got.Principal != "id-exchange" || !slices.Equal(got.Permissions, []string{"get", "wrapKey"}) {
		t.Errorf("%+v", got)
	}
	if !slices.Equal(tokens, []string{"Bearer token of id-exchange"}) {
		t.Errorf("asked with %q", tokens)
	}
}

func TestPropertiesThatAManagementOmitsAreUnset(t *testing.T) {
	for name, c := range map[string]struct {
		change func(vault map[string]any)
		fits   func(rootkey.VaultInfo) bool
	}{
		"purge protection": {func(v map[string]any) { delete(v["properties"].(map[string]any), "enablePurgeProtection") },
			func(v rootkey.VaultInfo) bool { return !v.PurgeProtection && v.SoftDelete }},
		"soft delete": {func(v map[string]any) { v["properties"].(map[string]any)["enableSoftDelete"] = false },
			func(v rootkey.VaultInfo) bool { return !v.SoftDelete }},
		"the principal": {func(v map[string]any) { v["properties"].(map[string]any)["accessPolicies"] = []any{} },
			func(v rootkey.VaultInfo) bool { return v.Principal == "id-exchange" && len(v.Permissions) == 0 }},
		"access policies at all": {func(v map[string]any) { v["properties"].(map[string]any)["enableRbacAuthorization"] = true },
			func(v rootkey.VaultInfo) bool { return v.Principal == "" && len(v.Permissions) == 0 }},
	} {
		w := newFakeVault(t)
		var tokens []string
		w.managed(t, c.change, &tokens)
		got, err := w.client(t).Describe(t.Context(), 1, rootkey.Exchange, "Contoso-A")
		if err != nil || !c.fits(got) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestErrorSaysWhyAVaultCannotBeDescribed(t *testing.T) {
	for want, c := range map[string]struct {
		vault  string
		answer http.HandlerFunc
		time   time.Duration
	}{
		"none of the subscriptions that it lists has the vault": {vault: "nowhere"},
		"the vault refused the service (403)": {vault: "Contoso-A", answer: func(rw http.ResponseWriter, r *http.Request) {
			answerError(rw, 403, "AuthorizationFailed", "", "no")
		}},
		"an unusable answer":     {vault: "Contoso-A", answer: func(rw http.ResponseWriter, r *http.Request) { rw.Write([]byte("<html>")) }},
		"did not answer in time": {vault: "Contoso-A", answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, time: 50 * time.Millisecond},
	} {
		t.Run(want, func(t *testing.T) {
			w := newFakeVault(t)
			var tokens []string
			w.managed(t, nil, &tokens)
			if c.answer != nil {
				inner := w.authority
				w.authority = func(rw http.ResponseWriter, r *http.Request) {
					if strings.HasPrefix(r.URL.Path, "/subscriptions/") {
						c.answer(rw, r)
						return
					}
					inner(rw, r)
				}
			}
			client := w.client(t)
			if c.time != 0 {
				client.SetTimeout(c.time)
			}
			_, err := client.Describe(t.Context(), 1, rootkey.Exchange, c.vault)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `vault "`+c.vault+`"`) {
				t.Errorf("%v", err)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := client.Describe(ended, 1, rootkey.Exchange, c.vault); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
}

func TestAnAzureVaultIsDescribedWithoutAnyOwnSecret(t *testing.T) {
	w := newFakeVault(t)
	var tokens []string
	w.managed(t, nil, &tokens)
	config := w.config()
	config.Tenant, config.Secret = nil, nil // a call would panic
	var dialled string
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled = address
		return new(net.Dialer).DialContext(ctx, network, w.address())
	}
	config.External = &rootkey.External{Dial: dial, RootCAs: w.ca, Credential: staticCredential{}}
	c := newClient(t, config)
	got, err := c.Describe(t.Context(), 1, rootkey.Exchange, "https://contoso-a.vault.azure.net")
	if err != nil || dialled != "management.azure.com:443" {
		t.Fatalf("dialled %q: %v", dialled, err)
	}
	if got.Subscription != "s2" || !got.PurgeProtection || got.Principal != "" || got.Permissions != nil {
		t.Errorf("%+v", got)
	}
}

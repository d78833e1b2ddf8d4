package rootkey_test

import (
	"net/url"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/rootkey"
)

func parser(domain, port string) *rootkey.Client {
	return rootkey.New(rootkey.Config{VaultDomain: domain, Port: port})
}

func TestParseURI(t *testing.T) {
	const guid = "01234567-89ab-CDEF-0123-456789abcdef"
	long := strings.Repeat("a", 127)
	for _, test := range []struct {
		domain, uri string
		want        envelope.KeyVersion // zero: refused
	}{
		{domain, "https://contoso-a.vault.localhost/keys/k1", envelope.KeyVersion{Vault: "contoso-a", Key: "k1"}},
		{domain, "https://Contoso-O365EX-NA-VaultA1.vault.localhost:8443/keys/Contoso-O365EX-NA-VaultA1-Key001/" + version1, envelope.KeyVersion{Vault: "Contoso-O365EX-NA-VaultA1", Key: "Contoso-O365EX-NA-VaultA1-Key001", Version: version1}},
		{domain, "https://v-1.VAULT.localhost:1/keys/Key_01/" + guid, envelope.KeyVersion{Vault: "v-1", Key: "Key_01", Version: version1}},
		{domain, "HTTPS://v-1.vault.localhost/keys/k/" + strings.ToUpper(version1), envelope.KeyVersion{Vault: "v-1", Key: "k", Version: version1}},
		{domain, "https://" + long + ".vault.localhost/keys/" + long, envelope.KeyVersion{Vault: long, Key: long}},
		{domain, "https://ContosoA.Vault.Azure.Net/keys/Key_01", envelope.KeyVersion{Vault: "https://contosoa.vault.azure.net", Key: "Key_01"}},
		{domain, "https://contosoa.vault.azure.net:443/keys/k", envelope.KeyVersion{Vault: "https://contosoa.vault.azure.net", Key: "k"}},
		{domain, "https://contosoa.managedhsm.azure.net/keys/k", envelope.KeyVersion{Vault: "https://contosoa.managedhsm.azure.net", Key: "k"}},
		{domain, "https://contosoa.vault.azure.cn/keys/k", envelope.KeyVersion{Vault: "https://contosoa.vault.azure.cn", Key: "k"}},
		{domain, "https://contosoa.vault.usgovcloudapi.net/keys/k", envelope.KeyVersion{Vault: "https://contosoa.vault.usgovcloudapi.net", Key: "k"}},
		{"vault.azure.net", "https://contosoa.vault.azure.net/keys/k", envelope.KeyVersion{Vault: "contosoa", Key: "k"}},
		{"vault.azure.net", "https://contosoa.vault.azure.cn/keys/k", envelope.KeyVersion{Vault: "https://contosoa.vault.azure.cn", Key: "k"}},
		{"vault.azure.net", "https://contosoa.managedhsm.azure.net/keys/k", envelope.KeyVersion{Vault: "contosoa", Key: "k"}},
		{domain, "https://contosoa.managedhsm.localhost:8443/keys/k", envelope.KeyVersion{Vault: "contosoa", Key: "k"}},
		{domain: domain, uri: ""},
		{domain: domain, uri: "k1"},
		{domain: domain, uri: "http://contoso-a.vault.localhost/keys/k1"},
		{domain: domain, uri: "https://vault.localhost/keys/k1"},
		{domain: domain, uri: "https://a.b.vault.localhost/keys/k1"},
		{domain: domain, uri: "https://ab.vault.localhost/keys/k1"},
		{domain: domain, uri: "https://a" + long + ".vault.localhost/keys/k1"},
		{domain: domain, uri: "https://-ab.vault.localhost/keys/k1"},
		{domain: domain, uri: "https://contoso_.vault.localhost/keys/k1"},
		{domain: domain, uri: "https://contoso-a.vault.localhost.example/keys/k1"},
		{domain: domain, uri: "https://contoso-a.evilvault.localhost/keys/k1"},
		{domain: domain, uri: "https://contoso-a.vault.example/keys/k1"},
		{domain: domain, uri: "https://example/keys/k1?x=.vault.localhost"},
		{domain: domain, uri: "https://contoso-a.vault.localhost@example/keys/k1"},
		{domain: domain, uri: "https://user@contoso-a.vault.localhost/keys/k1"},
		{domain: domain, uri: "https://contosoa.vault.azure.net:8443/keys/k"},
		{domain: domain, uri: "https://contoso-a.vault.localhost"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/keys"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/keys/"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/secrets/k1"},
		{domain: domain, uri: "https://contoso-a.vault.localhost//keys/k1"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/keys/../k1"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/keys/k%31"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/keys/k1/"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/keys/k1/v1"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/keys/k1/" + version1 + "/"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/keys/k1/" + version1 + "/wrapkey"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/keys/k1?api-version=7.4"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/keys/k1?"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/keys/k1#x"},
		{domain: domain, uri: "https://contoso-a.vault.localhost/keys/k1\n"},
	} {
		kv, err := parser(test.domain, "8443").ParseURI(test.uri)
		if kv != test.want {
			t.Errorf("%s under %s: %+v, %v", test.uri, test.domain, kv, err)
		}
		if refused := test.want == (envelope.KeyVersion{}); refused != (err != nil) {
			t.Errorf("%s under %s: error %v", test.uri, test.domain, err)
		}
		if err != nil {
			_, detail, hint := fail.Public(err)
			if !fail.Is(err, api.InvalidArgument) || !strings.Contains(detail, "is not the URI of a key in a vault") || !strings.Contains(hint, "."+test.domain+"/keys/") {
				t.Errorf("%s: %q, hint %q", test.uri, detail, hint)
			}
		}
	}
}

func TestReference(t *testing.T) {
	c := parser(domain, "8443")
	for _, test := range []struct {
		vault, key, version string
		want                envelope.KeyVersion
	}{
		{"stageRG3vault", "SPKey3", "", envelope.KeyVersion{Vault: "stageRG3vault", Key: "SPKey3"}},
		{"stageRG3vault", "SPKey3", "01234567-89ab-cdef-0123-456789abcdef", envelope.KeyVersion{Vault: "stageRG3vault", Key: "SPKey3", Version: version1}},
		{"https://A-b.vault.azure.net/", "k", version1, envelope.KeyVersion{Vault: "https://a-b.vault.azure.net", Key: "k", Version: version1}},
		{"https://A-b.vault.localhost:99", "k", "", envelope.KeyVersion{Vault: "A-b", Key: "k"}},
		{vault: "evil.example/x", key: "k"},
		{vault: "https://evil.example", key: "k"},
		{vault: "https://a-b.vault.azure.net/keys", key: "k"},
		{vault: "", key: "k"},
		{vault: "vault", key: ""},
		{vault: "vault", key: "k/../x"},
		{vault: "vault", key: "k", version: "VERSION"},
	} {
		kv, err := c.Reference(test.vault, test.key, test.version)
		if kv != test.want || (err != nil) != (test.want == envelope.KeyVersion{}) || err != nil && !fail.Is(err, api.InvalidArgument) {
			t.Errorf("%q %q %q: %+v, %v", test.vault, test.key, test.version, kv, err)
		}
	}
}

func TestURIShowsThePortOfTheListener(t *testing.T) {
	kv := envelope.KeyVersion{Vault: "Contoso-A", Key: "k1", Version: version1}
	for port, want := range map[string]string{
		"8443": "https://Contoso-A.vault.localhost:8443/keys/k1/" + version1,
		"443":  "https://Contoso-A.vault.localhost/keys/k1/" + version1,
	} {
		if got := parser(domain, port).URI(kv); got != want {
			t.Errorf("%s: %s", port, got)
		}
	}
}

// FuzzParseURI: what is accepted reads back from its own URI, and no name makes
// a request leave the allowed domains.
func FuzzParseURI(f *testing.F) {
	for _, seed := range []string{
		"https://contoso-a.vault.localhost:8443/keys/k1/" + version1, "https://contosoa.vault.azure.net/keys/Key_01",
		"https://x@y.vault.localhost/keys/k1", "https://a.vault.localhost:99999999/keys/k", "https://[::1]/keys/k", "https:contoso-a.vault.localhost/keys/k", "%",
	} {
		f.Add(seed)
	}
	c := parser(domain, "8443")
	f.Fuzz(func(t *testing.T, uri string) {
		kv, err := c.ParseURI(uri)
		if err != nil {
			if !fail.Is(err, api.InvalidArgument) || len(err.Error()) > 2000 {
				t.Fatalf("%q: %v", uri, err)
			}
			return
		}
		again, err := c.ParseURI(c.URI(kv))
		if err != nil || again != kv {
			t.Fatalf("%q: %+v, then %+v, %v", uri, kv, again, err)
		}
		base, err := c.BaseURL(kv.Vault)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(base)
		if err != nil {
			t.Fatal(err)
		}
		_, of, _ := strings.Cut(u.Hostname(), ".")
		switch of {
		case domain, "vault.azure.net", "managedhsm.azure.net", "vault.azure.cn", "managedhsm.azure.cn", "vault.usgovcloudapi.net", "managedhsm.usgovcloudapi.net":
		default:
			t.Fatalf("%q leads to %s", uri, base)
		}
	})
}

package vault_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/internal/store"
)

// By default a key's operations are those that the vault has.
func TestKeyListsOnlyOperationsThatTheVaultOffers(t *testing.T) {
	n := contoso(t, sqlite(t))
	c := n.keys("contoso-A")
	for kty, want := range map[azkeys.KeyType]string{"RSA": "wrapKey unwrapKey", "RSA-HSM": "wrapKey unwrapKey", "EC": "", "EC-HSM": ""} {
		made, err := c.CreateKey(t.Context(), "k-"+string(kty), azkeys.CreateKeyParameters{Kty: to.Ptr(kty), KeySize: to.Ptr(int32(2048))}, nil)
		if err != nil {
			t.Fatalf("%s: %v", kty, err)
		}
		var ops []string
		for _, op := range made.Key.KeyOps {
			ops = append(ops, string(*op))
		}
		platform := map[bool]string{true: "2", false: "0"}[strings.HasSuffix(string(kty), "-HSM")]
		if strings.Join(ops, " ") != want || made.Attributes.HSMPlatform == nil || *made.Attributes.HSMPlatform != platform {
			t.Errorf("%s: %v, platform %v", kty, ops, made.Attributes.HSMPlatform)
		}
	}
}

// Keys that earlier versions stored with more operations show those that the
// vault has, and go on to wrap.
func TestStoredOperationsThatTheVaultDoesNotOfferAreNotShown(t *testing.T) {
	n := contoso(t, sqlite(t))
	c := n.keys("contoso-A")
	create(t, c, "k", rsa2048())
	if err := n.db.InTx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE vault_key_version SET operations = 'encrypt decrypt sign verify wrapKey unwrapKey'`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetKey(t.Context(), "k", "", nil)
	if err != nil || len(got.Key.KeyOps) != 2 {
		t.Errorf("%v, %v", got.Key, err)
	}
	if _, err := c.WrapKey(t.Context(), "k", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("x")), nil); err != nil {
		t.Error(err)
	}
}

func TestErrorNamesAnOperationThatIsNotOffered(t *testing.T) {
	n := contoso(t, sqlite(t))
	create(t, n.keys("contoso-A"), "k", rsa2048())
	version := "/" + strings.Repeat("a", 32)
	type request struct{ method, path, body, operation string }
	var all []request
	for _, operation := range []string{"encrypt", "decrypt", "sign", "verify", "release", "attestation"} {
		for _, at := range []string{"/keys/k/", "/keys/k//", "/keys/k" + version + "/"} {
			all = append(all, request{"POST", at + operation, `{}`, operation})
		}
	}
	for _, c := range append(all, []request{
		{"GET", "/keys/k" + version + "/attestation", ``, "attestation"},
		{"POST", "/keys/k/rotate", ``, "rotate"},
		{"GET", "/keys/k/rotationpolicy", ``, "rotationpolicy"},
		{"PUT", "/keys/k/rotationpolicy", `{}`, "rotationpolicy"},
		{"POST", "/rng", `{}`, "rng"},
		{"POST", "/keys/n/create", `{"kty":"RSA","key_ops":["wrapKey","encrypt"]}`, "encrypt"},
		{"POST", "/keys/n/create", `{"kty":"EC","key_ops":["sign"]}`, "sign"},
		{"PATCH", "/keys/k", `{"key_ops":["verify"]}`, "verify"},
		{"POST", "/keys/n/create", `{"kty":"oct"}`, "oct"},
	}...) {
		var p problem
		status := n.call(c.method, n.url("contoso-A")+c.path+"?api-version=7.4", c.body, &p)
		if status != 403 && c.operation != "oct" || status >= 500 || !strings.Contains(p.Error.Message, "this vault offers no ") || !strings.Contains(p.Error.Message, c.operation) {
			t.Errorf("%s %s: %d %+v", c.method, c.path, status, p.Error)
		}
	}
	if _, err := n.keys("contoso-A").GetKeyRotationPolicy(t.Context(), "k", nil); err == nil || !strings.Contains(err.Error(), "no operation rotationpolicy") {
		t.Errorf("the official client: %v", err)
	}
	if _, err := n.keys("contoso-A").Encrypt(t.Context(), "k", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("x")), nil); err == nil || !strings.Contains(err.Error(), "no operation encrypt") {
		t.Errorf("the official client: %v", err)
	}
}

func TestPropertiesThatAzureIgnoresAreIgnored(t *testing.T) {
	n := contoso(t, sqlite(t))
	for _, body := range []string{`{"kty":"EC","key_size":256}`, `{"kty":"EC","unknown":{"a":[1]},"attributes":{"unknown":1}}`, `{"kty":"RSA","crv":"P-256"}`} {
		if status := n.call("POST", n.url("contoso-A")+"/keys/k/create?api-version=7.4", body, nil); status != 200 {
			t.Errorf("%s: %d", body, status)
		}
	}
}

func TestWrongMethodIsRefusedWithTheAllowedMethods(t *testing.T) {
	n := contoso(t, sqlite(t))
	for _, c := range []struct{ method, url, allow string }{
		{"DELETE", n.url("contoso-A") + "/keys?api-version=7.4", "GET"},
		{"GET", n.url("contoso-A") + "/keys/k/backup?api-version=7.4", "POST"},
		{"GET", n.url("contoso-A") + "/keys/k/wrapkey?api-version=7.4", "POST"},
		{"POST", n.url("contoso-A") + "/keys/k?api-version=7.4", "PUT, DELETE, GET, PATCH"},
		{"POST", n.server.URL + "/subscriptions?api-version=2022-12-01", "GET"},
	} {
		status, header := n.callWith(c.method, c.url, "", n.token, nil)
		if status != http.StatusMethodNotAllowed || header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %d, Allow %q", c.method, c.url, status, header.Get("Allow"))
		}
	}
}

// send sends a request with further headers and returns the answer's.
func (n *tenant) send(t *testing.T, method, url, body string, headers map[string]string) (int, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+n.token)
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	answer, err := n.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode, answer.Header
}

func TestResponseHeadersAreThoseOfAzure(t *testing.T) {
	n := contoso(t, sqlite(t))
	url := n.url("contoso-A") + "/keys?api-version=7.4"
	_, header := n.send(t, "GET", url, "", map[string]string{"x-ms-client-request-id": "mine", "x-ms-return-client-request-id": "true"})
	if header.Get("x-ms-client-request-id") != "mine" || header.Get("x-ms-keyvault-region") == "" || header.Get("x-ms-keyvault-service-version") == "" || header.Get("x-ms-request-id") == "" {
		t.Errorf("%v", header)
	}
	if _, header := n.send(t, "GET", url, "", map[string]string{"x-ms-client-request-id": "mine"}); header.Get("x-ms-client-request-id") != "" {
		t.Error("the client's id is returned although it did not ask")
	}
}

func TestBearerSchemeAndContentCoding(t *testing.T) {
	n := contoso(t, sqlite(t))
	for _, scheme := range []string{"bearer", "BEARER"} {
		for _, url := range []string{n.url("contoso-A") + "/keys?api-version=7.4", n.server.URL + "/subscriptions?api-version=2022-12-01"} {
			if status, _ := n.send(t, "GET", url, "", map[string]string{"Authorization": scheme + " " + n.token}); status != 200 {
				t.Errorf("%s %s: %d", scheme, url, status)
			}
		}
	}
	if status, _ := n.send(t, "POST", n.url("contoso-A")+"/keys/k/create?api-version=7.4", `{"kty":"EC"}`, map[string]string{"Content-Encoding": "gzip"}); status != http.StatusUnsupportedMediaType {
		t.Errorf("a content coding: %d", status)
	}
}

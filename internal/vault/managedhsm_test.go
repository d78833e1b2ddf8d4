package vault_test

import (
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/internal/access"
)

// A premium vault serves the official client as a Managed HSM too, under that domain; a
// standard one does not exist there.
func TestPremiumVaultAnswersAsManagedHSM(t *testing.T) {
	n := contoso(t, sqlite(t))
	n.createVault("standard-A", func(p *armkeyvault.VaultProperties) { p.SKU.Name = to.Ptr(armkeyvault.SKUNameStandard) })
	as := func(vault string) *azkeys.Client {
		url := strings.Replace(n.url(vault), ".vault.", ".managedhsm.", 1)
		client, err := azkeys.NewClient(url, n.credential(n.admin.ID, n.token), &azkeys.ClientOptions{ClientOptions: n.clientOptions()})
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	made, err := as("contoso-A").CreateKey(t.Context(), "k", azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeRSAHSM)}, nil)
	if err != nil || !strings.Contains(string(*made.Key.KID), ".managedhsm.localhost") {
		t.Fatalf("%+v, %v", made.Key, err)
	}
	same, err := n.keys("contoso-A").GetKey(t.Context(), "k", "", nil)
	if err != nil || same.Key.KID.Version() != made.Key.KID.Version() {
		t.Errorf("under the vault domain: %v, %v", same.Key, err)
	}
	if _, err := as("standard-A").GetKey(t.Context(), "k", "", nil); err == nil || !strings.Contains(err.Error(), "VaultNotFound") {
		t.Errorf("a standard vault: %v", err)
	}
}

func TestManagedHSMDomainReplacesTheFirstLabel(t *testing.T) {
	for domain, want := range map[string]string{"vault.localhost": "managedhsm.localhost", "vault.azure.net": "managedhsm.azure.net"} {
		if got := access.ManagedHSMDomain(domain); got != want {
			t.Errorf("%s: %s", domain, got)
		}
	}
}

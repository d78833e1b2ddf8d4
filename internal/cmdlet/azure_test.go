package cmdlet

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
)

func TestVaultsAndKeysAreManaged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "k.pem")
	if err := os.WriteFile(file, []byte(pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(must(rsa.GenerateKey(rand.Reader, 2048))))), 0o600); err != nil {
		t.Fatal(err)
	}
	none, gone := version(1), "ShowVault Contoso-A"
	for _, test := range []struct{ line, calls string }{
		{"Get-AzKeyVault -InRemovedState", "ListDeletedVaults"},
		{"Get-AzKeyVault contoso-gone -InRemovedState -Location 'West US'", "ListDeletedVaults"},
		{"Update-AzKeyVault Contoso-A rg -EnablePurgeProtection", gone + "; ProtectVault Contoso-A"},
		{"Remove-AzKeyVault Contoso-A -Location westus -Force", gone + "; ListKeyUsage Contoso-A; RemoveVault Contoso-A"},
		{"Remove-AzKeyVault Contoso-A -InRemovedState -Confirm:$false", "ListKeyUsage Contoso-A; PurgeVault Contoso-A"},
		{"Undo-AzureRmKeyVaultRemoval -VaultName Contoso-Gone -ResourceGroupName rg -Location westus", "RecoverVault Contoso-Gone"},
		{"Set-AzKeyVaultAccessPolicy Contoso-A -UserPrincipalName alice@contoso.com -PermissionsToKeys create,list", "SetAccess Contoso-A alice@contoso.com [create list]"},
		{"Remove-AzureRmKeyVaultAccessPolicy Contoso-A -UserPrincipalName alice@contoso.com -Confirm:$false", "SetAccess Contoso-A alice@contoso.com []"},
		{"Get-AzureKeyVaultKey Contoso-A -InRemovedState", "ListDeletedKeys Contoso-A"},
		{"Get-AzKeyVaultKey Contoso-A Key001 -InRemovedState", "ShowDeletedKey Contoso-A Key001"},
		{"Remove-AzKeyVaultKey Contoso-A Key001 -InRemovedState -Force", "ListKeyUsage Contoso-A Key001; PurgeKey Contoso-A Key001"},
		{"Add-AzKeyVaultKey Contoso-A Key001 -KeyFilePath '" + file + "' -Destination HSM", "ImportKey Contoso-A Key001 2048 bits RSA-HSM 0 [] enabled=true"},
		{"Add-AzKeyVaultKey -HsmName Contoso-A -Name k -KeyType RSA", "CreateKey Contoso-A k RSA-HSM 0 [] enabled=true"},
		{"Add-AzKeyVaultKey Contoso-A k -Destination HSM -KeyType RSA-HSM", "CreateKey Contoso-A k RSA-HSM 0 [] enabled=true"},
		{"Get-AzKeyVaultKey -HsmName Contoso-A -Name Key001 -Version " + none, "ShowKey Contoso-A Key001 " + none},
		{"Set-AzContext -SubscriptionId " + guid1 + "; Register-AzProviderFeature -FeatureName f -ProviderNamespace n; Get-AzureRmProviderFeature -FeatureName f -ProviderNamespace n; Register-AzureRmResourceProvider n",
			"RegisterFeature " + guid1 + " n f; ShowFeature " + guid1 + " n f; RegisterProvider " + guid1 + " n"},
		{"Login-AzureRmAccount -Subscription " + guid2 + "; Get-AzProviderFeature -ProviderNamespace n -FeatureName f", "ShowFeature " + guid2 + " n f"},
		{"New-AzResourceGroup rg 'West US'", ""},
		{"$r = Get-AzResource (Get-AzKeyVault Contoso-A).ResourceId; $r.Properties | Add-Member NoteProperty enablePurgeProtection $true; Set-AzResource -ResourceId $r.ResourceId -Properties $r.Properties",
			gone + "; " + gone + "; " + gone + "; ProtectVault Contoso-A"},
	} {
		got := runWith(storyRecorder(), test.line, nil)
		if calls := strings.Join(got.calls, "; "); got.failure != nil || calls != test.calls {
			t.Errorf("%s\n got %s\nwant %s; %v", test.line, calls, test.calls, got.failure)
		}
	}
	for line, want := range map[string]string{
		"Add-AzKeyVaultKey v k -Destination Software -KeyType RSA-HSM":          "-KeyType RSA-HSM does not go with -Destination Software",
		"Add-AzKeyVaultKey v k -Destination HSM -KeyFilePath no/such":           "the key cannot be read",
		"Update-AzKeyVault Contoso-A other -EnablePurgeProtection":              `vault "Contoso-A" is in another resource group or region`,
		"Get-AzKeyVault nobody -InRemovedState":                                 `no deleted vault is named "nobody"`,
		"New-AzKeyVault v rg west -SoftDeleteRetentionInDays 5":                 "-SoftDeleteRetentionInDays takes 7 to 90, found 5",
		"New-AzKeyVault v rg west -EnableSoftDelete:$false":                     "soft delete is always on",
		"Set-AzContext -SubscriptionId mine":                                    `"mine" is no id of a subscription`,
		"Get-AzResource /subscriptions/s/resourceGroups/other/vaults/Contoso-A": "resource \"/subscriptions/s/resourceGroups/other/vaults/Contoso-A\" does not exist",
		"Set-AzResource (Get-AzKeyVault Contoso-A).ResourceId -Properties 'a'":  "-Properties takes the properties of a resource",
		"'a' | Add-Member NoteProperty x 1":                                     `takes objects, found "a"`,
		"$r = Get-AzResource (Get-AzKeyVault Contoso-A).ResourceId; $r.Properties | Add-Member NoteProperty enableSoftDelete 'False'; $r | Set-AzResource -Properties $r.Properties": "enableSoftDelete of vault Contoso-A is on and cannot be switched off",
		"$r = Get-AzResource (Get-AzKeyVault Contoso-A).ResourceId; $r.Properties | Add-Member NoteProperty sku 'none'; $r | Set-AzResource -Properties $r.Properties":               "property sku of a vault cannot be changed so",
	} {
		r := storyRecorder()
		if got := refusal(t, r, line); !strings.Contains(got, want) || len(r.changes()) > 0 {
			t.Errorf("%s: %s, %v", line, got, r.changes())
		}
	}
}

func TestSubscriptionIsSelectedForVaults(t *testing.T) {
	r := newRecorder()
	s := newSession(r.options(new(bytes.Buffer), new(bytes.Buffer)))
	if err := s.run(t.Context(), "Set-AzContext -SubscriptionId "+strings.ToUpper("aaaaaaaa-1111-1111-1111-111111111111")); err != nil || s.subscription != "aaaaaaaa-1111-1111-1111-111111111111" {
		t.Errorf("%v, %q", err, s.subscription)
	}
}

func TestConnectingChangesNothingAndAsksForNothing(t *testing.T) {
	for _, line := range []string{"Connect-ExchangeOnline -UserPrincipalName a@contoso.com", "Connect-SPOService https://contoso-admin.sharepoint.com", "Connect-AzAccount", "$c = Get-Credential; $s = New-PSSession -Credential $c; Import-PSSession $s", "Import-Module M365CustomerKeyOnboarding"} {
		got := mustRun(t, line, nil)
		if len(got.calls) > 0 || got.out != "" || !strings.Contains(got.err, "the shell is connected already") {
			t.Errorf("%s: %v, %q, %q", line, got.calls, got.out, got.err)
		}
	}
}

func TestOnboardingNamesWhatIsToRepair(t *testing.T) {
	const line = "New-CustomerKeyOnboardingRequest -Organization contoso -Scenario EXO -Subscription1 " + guid1 + " -KeyIdentifier1 https://a.vault.azure.net/keys/k -Subscription2 " + guid2 + " -KeyIdentifier2 https://b.vault.azure.net/keys/k"
	good := func(vault, region, subscription string) candidate {
		return candidate{
			Key: Key{Vault: vault, Name: "k", Type: "RSA-HSM", Operations: []string{"wrapKey", "unwrapKey"}, Enabled: true, RecoveryLevel: "Recoverable"},
			vault: Vault{Name: vault, Location: region, Subscription: subscription, PurgeProtection: true,
				Access: []Access{{Principal: exchangeID, Keys: []string{"get", "wrapKey", "unwrapKey"}}}},
			subscription: subscription,
		}
	}
	day := day
	for want, spoil := range map[string]func(a, b *candidate){
		"":                           func(a, b *candidate) { a.Expires = &never },
		"both keys stand in vault a": func(a, b *candidate) { b.vault.Name = "A" },
		"both vaults are in subscription " + guid1: func(a, b *candidate) { b.subscription, b.vault.Subscription = guid1, guid1 },
		"both vaults are in region west":           func(a, b *candidate) { b.vault.Location = "west" },
		"vault b is in subscription " + guid3:      func(a, b *candidate) { b.vault.Subscription = guid3 },
		"vault a has no purge protection":          func(a, b *candidate) { a.vault.PurgeProtection = false },
		"is of type EC-HSM":                        func(a, b *candidate) { a.Type = "EC-HSM" },
		"may not unwrapKey":                        func(a, b *candidate) { b.Operations = []string{"wrapKey"} },
		"key k in vault a is disabled":             func(a, b *candidate) { a.Enabled = false },
		"key k in vault a expires":                 func(a, b *candidate) { a.Expires = &day },
		"it can be purged":                         func(a, b *candidate) { a.RecoveryLevel = "Recoverable+Purgeable" },
		"the service has not all of":               func(a, b *candidate) { b.vault.Access[0].Keys = []string{"get", "wrapKey"} },
	} {
		pair := [2]candidate{good("a", "west", guid1), good("b", "east", guid2)}
		spoil(&pair[0], &pair[1])
		failed := validate(pair, exchangeID)
		if want == "" && failed != nil || want != "" && (len(failed) != 1 || !strings.Contains(failed[0], want)) {
			t.Errorf("%s: %q", want, failed)
		}
	}
	got := mustRun(t, line+"; (Get-CustomerKeyOnboardingRequest -OrganizationId contoso).ValidationResult", nil)
	if !strings.Contains(got.out, "ValidationResult  : Failure") || !strings.HasSuffix(got.out, "\nFailure\n") {
		t.Error(got.out)
	}
	r := newRecorder()
	r.fail = map[string]error{"ShowVault": &api.Problem{Code: api.NotFound, Detail: "vault does not exist"}}
	if got := runWith(r, "("+line+").FailedValidations", nil); got.out != "vault does not exist\nvault does not exist\n" {
		t.Errorf("%q, %v", got.out, got.failure)
	}
}

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

func TestCmdletsManageVaultsAndKeys(t *testing.T) {
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
		"Add-AzKeyVaultKey v k -Destination Software -KeyType RSA-HSM":          "-KeyType RSA-HSM cannot be used with -Destination Software",
		"Add-AzKeyVaultKey v k -Destination HSM -KeyFilePath no/such":           "the key cannot be read",
		"Update-AzKeyVault Contoso-A other -EnablePurgeProtection":              `vault "Contoso-A" is in another resource group or region`,
		"Get-AzKeyVault unknown -InRemovedState":                                `no deleted vault is named "unknown"`,
		"New-AzKeyVault v rg west -SoftDeleteRetentionInDays 5":                 "-SoftDeleteRetentionInDays must be 7 to 90, found 5",
		"New-AzKeyVault v rg west -EnableSoftDelete:$false":                     "soft delete is always on",
		"Set-AzContext -SubscriptionId mine":                                    `"mine" is not a valid subscription id`,
		"Get-AzResource /subscriptions/s/resourceGroups/other/vaults/Contoso-A": "resource \"/subscriptions/s/resourceGroups/other/vaults/Contoso-A\" does not exist",
		"Set-AzResource (Get-AzKeyVault Contoso-A).ResourceId -Properties 'a'":  "-Properties needs the properties of a resource",
		"'a' | Add-Member NoteProperty x 1":                                     `needs objects, found "a"`,
		"$r = Get-AzResource (Get-AzKeyVault Contoso-A).ResourceId; $r.Properties | Add-Member NoteProperty enableSoftDelete 'False'; $r | Set-AzResource -Properties $r.Properties": "enableSoftDelete of vault Contoso-A is on and cannot be switched off",
		"$r = Get-AzResource (Get-AzKeyVault Contoso-A).ResourceId; $r.Properties | Add-Member NoteProperty sku 'none'; $r | Set-AzResource -Properties $r.Properties":               "property sku of a vault cannot be changed with this cmdlet",
	} {
		r := storyRecorder()
		if got := refusal(t, r, line); !strings.Contains(got, want) || len(r.changes()) > 0 {
			t.Errorf("%s: %s, %v", line, got, r.changes())
		}
	}
}

func TestSelectedSubscriptionIsUsedForVaults(t *testing.T) {
	r := newRecorder()
	s := newSession(r.options(new(bytes.Buffer), new(bytes.Buffer)))
	if err := s.run(t.Context(), "Set-AzContext -SubscriptionId "+strings.ToUpper("aaaaaaaa-1111-1111-1111-111111111111")); err != nil || s.subscription != "aaaaaaaa-1111-1111-1111-111111111111" {
		t.Errorf("%v, %q", err, s.subscription)
	}
}

func TestConnectCmdletsDoNothing(t *testing.T) {
	for _, line := range []string{"Connect-ExchangeOnline -UserPrincipalName a@contoso.com", "Connect-SPOService https://contoso-admin.sharepoint.com", "Connect-AzAccount", "$c = Get-Credential; $s = New-PSSession -Credential $c; Import-PSSession $s", "Import-Module M365CustomerKeyOnboarding"} {
		got := mustRun(t, line, nil)
		if len(got.calls) > 0 || got.out != "" || !strings.Contains(got.err, "the shell is connected already") {
			t.Errorf("%s: %v, %q, %q", line, got.calls, got.out, got.err)
		}
	}
}

// An onboarding request reports the checks of the service, and adds only the check that
// the vaults are in the given subscriptions.
func TestOnboardingReportsTheChecksOfTheService(t *testing.T) {
	const line = "New-CustomerKeyOnboardingRequest -Organization contoso -Scenario EXO -Subscription1 " + guid1 + " -KeyIdentifier1 https://Contoso-A.vault.azure.net/keys/k/v -Subscription2 " + guid1 + " -KeyIdentifier2 https://b.vault.azure.net/keys/k"
	r := storyRecorder()
	r.vaults[0].Subscription = guid1
	got := runWith(r, "("+line+").ValidationResult; (Get-CustomerKeyOnboardingRequest -OrganizationId contoso).FailedValidations", nil)
	if got.failure != nil || got.out != "Success\n" || !strings.HasPrefix(strings.Join(r.calls, ";"), "CheckKeys mailbox [https://Contoso-A.vault.azure.net/keys/k/v https://b.vault.azure.net/keys/k]") {
		t.Errorf("%q, %v, %v", got.out, got.failure, r.calls)
	}
	r.check = api.KeyCheck{Refusals: []api.Refusal{{Detail: "it is small", Hint: "take a large one"}, {Detail: "it is old"}}, Warnings: []string{"it is near"}}
	r.vaults[0].Subscription = guid3
	got = runWith(r, "("+line+") | % { $_.ValidationResult; $_.FailedValidations }", nil)
	elsewhere := "vault Contoso-A is in subscription " + guid3 + ", not in " + guid1 + "\n" // the recorder knows one vault
	want := "Failure\nit is small: take a large one\nit is old\n" + elsewhere + elsewhere
	if got.out != want || got.err != "WARNING: it is near\n" {
		t.Errorf("%q, %q, %v", got.out, got.err, got.failure)
	}
	r.fail = map[string]error{"CheckKeys": &api.Problem{Code: api.InvalidArgument, Detail: "no key"}}
	if got := runWith(r, line, nil); got.failure == nil || got.out != "" {
		t.Errorf("%q, %v", got.out, got.failure)
	}
}

// With -WhatIf a change fails if the service would refuse it.
func TestWhatIfRefusesWhatTheChangeWouldRefuse(t *testing.T) {
	for line, operation := range map[string]string{
		"New-DataEncryptionPolicy -Name a -AzureKeyIDs https://a.vault.azure.net/keys/k,https://b.vault.azure.net/keys/k":                "CreatePolicy",
		"New-M365DataAtRestEncryptionPolicy -Name a -AzureKeyIDs https://a.vault.azure.net/keys/k,https://b.vault.azure.net/keys/k":      "CreatePolicy",
		"Set-DataEncryptionPolicy USA_mailboxes -Refresh":                                                                                "RefreshPolicy",
		"Set-DataEncryptionPolicy USA_mailboxes -Replace -AzureKeyIDs https://a.vault.azure.net/keys/k,https://b.vault.azure.net/keys/k": "ReplacePolicyKeys",
	} {
		r := newRecorder()
		r.fail = map[string]error{operation: &api.Problem{Code: api.KeyUnusable, Detail: "it will not do"}}
		if got := refusal(t, r, line+" -WhatIf"); !strings.Contains(got, "it will not do") {
			t.Errorf("%s: %q", line, got)
		}
	}
}

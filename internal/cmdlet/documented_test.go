package cmdlet

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
)

// TestDocumentedLinesCallTheOperationsTheyName lists the calls to service and vaults that lines of
// the Customer Key documentation make.
func TestDocumentedLinesCallTheOperationsTheyName(t *testing.T) {
	const v, spaced = "f635a23bd4a44b9996ff6aadd88d42ba", "F635A23B-D4A4-4B99-96FF-6AADD88D42BA"
	tests := []struct{ line, calls string }{
		{
			`Add-AzureKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001 -Destination HSM -KeyOps @('wrapKey','unwrapKey') -NotBefore (Get-Date -Date "12/27/2016 12:01 AM")`,
			"CreateKey Contoso-O365EX-NA-VaultA1 Contoso-O365EX-NA-VaultA1-Key001 RSA-HSM 0 [wrapKey unwrapKey] enabled=true nbf=2016-12-27T00:01:00Z",
		},
		{
			`Set-DataEncryptionPolicy USA_mailboxes -Refresh`,
			"RefreshPolicy USA_mailboxes {Depth: AllGenerations:false}",
		},
		{
			`Get-MailboxStatistics -Identity alice@contoso.com | fl DataEncryptionPolicyID`,
			"ShowMailbox alice@contoso.com",
		},
		{
			`Update-SPODataEncryptionPolicy -Identity https://contoso-admin.sharepoint.com -KeyVaultName stageRG3vault -KeyName SPKey3 -KeyVersion ` + spaced + ` -KeyType Primary`,
			"ListGeos; ShowPolicy Sites; UpdatePolicy " + guid3 + " primary {Vault:stageRG3vault Key:SPKey3 Version:" + v + " URI:}",
		},
		{
			`Get-SPODataEncryptionPolicy -Identity https://contoso-admin.sharepoint.com`,
			"ListGeos; ShowPolicy Sites",
		},
		{
			`Get-SPODataEncryptionPolicy https://contoso-admin.sharepoint.com`,
			"ListGeos; ShowPolicy Sites",
		},
		{
			`New-AzKeyVault -VaultName Contoso-O365EX-NA-VaultA1 -ResourceGroupName Contoso-O365EX-NA-VaultA1-RG -Location 'West US 2' -Sku Premium -EnablePurgeProtection`,
			"CreateVault Contoso-O365EX-NA-VaultA1 Contoso-O365EX-NA-VaultA1-RG West US 2 premium true",
		},
		{
			`Set-AzKeyVaultAccessPolicy -VaultName Contoso-O365EX-NA-VaultA1 -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000`,
			"SetAccess Contoso-O365EX-NA-VaultA1 00000002-0000-0ff1-ce00-000000000000 [wrapKey unwrapKey get]",
		},
		{
			`Set-AzureRmKeyVaultAccessPolicy -VaultName Contoso-O365SP-NA-VaultA1 -PermissionsToKeys wrapKey, unwrapKey, get -ServicePrincipalName 00000003-0000-0ff1-ce00-000000000000`,
			"SetAccess Contoso-O365SP-NA-VaultA1 00000003-0000-0ff1-ce00-000000000000 [wrapKey unwrapKey get]",
		},
		{
			`(Get-AzKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001).Attributes.RecoveryLevel`,
			"ShowKey Contoso-O365EX-NA-VaultA1 Contoso-O365EX-NA-VaultA1-Key001",
		},
		{
			`Get-AzKeyVaultKey -VaultName Contoso-A -Name Key001 -IncludeVersions`,
			"ListKeyVersions Contoso-A Key001",
		},
		{
			`Update-AzKeyVaultKey -VaultName Contoso-A -Name Key001 -Version ` + v + ` -Expires 12/31/9999 -Enable $true`,
			"UpdateKey Contoso-A Key001 " + v + "  0 [] enabled=true exp=9999-12-31T00:00:00Z",
		},
		{
			`New-DataEncryptionPolicy -Name USA_mailboxes -Description "Root key for mailboxes in USA and its territories" -AzureKeyIDs https://contoso-eastusvault01.vault.azure.net/keys/USA_key_01, https://contoso-eastus2vault02.vault.azure.net/keys/USA_Key_02`,
			"CreatePolicy {Kind:mailbox Name:USA_mailboxes Description:Root key for mailboxes in USA and its territories Keys:[https://contoso-eastusvault01.vault.azure.net/keys/USA_key_01 https://contoso-eastus2vault02.vault.azure.net/keys/USA_Key_02]}",
		},
		{
			`New-DataEncryptionPolicy USA_mailboxes -AzureKeyIDs "https://a.vault.azure.net/keys/k","https://b.vault.azure.net/keys/k" -Enabled $true`,
			"CreatePolicy {Kind:mailbox Name:USA_mailboxes Description: Keys:[https://a.vault.azure.net/keys/k https://b.vault.azure.net/keys/k]}",
		},
		{`Get-DataEncryptionPolicy`, "ListPolicies"},
		{`Get-DataEncryptionPolicy $null`, "ListPolicies"},
		{`Get-DataEncryptionPolicy ` + guid2, "ShowPolicy " + guid2},
		{`New-Mailbox -Name alice@contoso.com`, "CreateMailbox {Name:alice@contoso.com Type:UserMailbox ExternalAddress: Policy:}"},
		{`Get-Mailbox`, "ListMailboxes {After: Limit:1000}"},
		{`Set-Mailbox -Identity alice@contoso.com -DataEncryptionPolicy USA_mailboxes`, `AssignMailbox alice@contoso.com "USA_mailboxes"`},
		{`Set-Mailbox -Identity alice@contoso.com -DataEncryptionPolicy $null`, `AssignMailbox alice@contoso.com ""`},
		{`New-SPOSite -Url https://contoso.sharepoint.com/sites/finance`, "CreateSite https://contoso.sharepoint.com/sites/finance"},
		{
			`Register-SPODataEncryptionPolicy -PrimaryKeyVaultName stageRG3vault -PrimaryKeyName SPKey3 -PrimaryKeyVersion ` + v + ` -SecondaryKeyVaultName stageRG5vault -SecondaryKeyName SPKey5 -SecondaryKeyVersion ` + spaced,
			"ListGeos; RegisterSites default {Vault:stageRG3vault Key:SPKey3 Version:" + v + " URI:} {Vault:stageRG5vault Key:SPKey5 Version:" + v + " URI:}",
		},
		{
			`Register-SPODataEncryptionPolicy -Identity https://contoso-admin.sharepoint.com -PrimaryKeyVaultUri https://a.vault.azure.net/keys/k/` + v + ` -SecondaryKeyVaultUri https://b.vault.azure.net/keys/k/` + v,
			"ListGeos; RegisterSites default {Vault: Key: Version: URI:https://a.vault.azure.net/keys/k/" + v + "} {Vault: Key: Version: URI:https://b.vault.azure.net/keys/k/" + v + "}",
		},
		{`Get-SPOSiteDataEncryptionPolicy -Identity https://contoso.sharepoint.com/sites/a`, "ShowSite https://contoso.sharepoint.com/sites/a; ListGeos; ShowPolicy Sites"},
		{
			`Get-Mailbox -ResultSize Unlimited | ForEach-Object { Get-MailboxStatistics -Identity $_.Identity }`,
			"ListMailboxes {After: Limit:1000}; ShowMailbox alice@contoso.com; ShowMailbox bob@contoso.com",
		},
		{
			"$a = Add-AzKeyVaultKey -VaultName stageRG3vault -Name SPKey3 -Destination HSM -KeyOps @('wrapKey','unwrapKey')\n" +
				"Update-SPODataEncryptionPolicy -KeyVaultName $a.VaultName -KeyName $a.Name -KeyVersion $a.Version -KeyType Secondary",
			"CreateKey stageRG3vault SPKey3 RSA-HSM 0 [wrapKey unwrapKey] enabled=true; ListGeos; ShowPolicy Sites; UpdatePolicy " + guid3 + " secondary {Vault:stageRG3vault Key:SPKey3 Version:" + version(7) + " URI:}",
		},
		{
			`Restore-AzKeyVaultKey -VaultName Contoso-A -InputFile testdata/Key001.backup`,
			"RestoreKey Contoso-A sealed",
		},
	}
	for _, test := range tests {
		got := mustRun(t, test.line, nil)
		if calls := strings.Join(got.calls, "; "); calls != test.calls {
			t.Errorf("%s\n got %s\nwant %s", test.line, calls, test.calls)
		}
		mustRun(t, test.line, asJSON)
	}
}

// documented returns the blocks of testdata/documented.ps1, by name, in order.
func documented(t *testing.T) (blocks []block) {
	t.Helper()
	raw, err := os.ReadFile("testdata/documented.ps1")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(raw), "\n\n")[1:] {
		name, text, ok := strings.Cut(part, "\n")
		if !ok || !strings.HasPrefix(name, "# ") {
			t.Fatalf("a block without a name: %q", part)
		}
		blocks = append(blocks, block{strings.TrimPrefix(name, "# "), text})
	}
	return blocks
}

type block struct{ name, text string }

// filled has the values for placeholders in the documentation.
var filled = strings.NewReplacer(
	"<SubscriptionId>", guid1, "<vault name>", "Contoso-A", "<vaultname>", "Contoso-A", "<key name>", "Key001", "<keyname>", "Key001",
	"<UPN of user>", "alice@contoso.com", "<Office 365 appID>", workloadsID, "TBD", sharePointID, "<HSM|Software>", "HSM",
	"<filename.backup>", "a.backup", "<filename .backup>", "b.backup", "<filename>", "a.backup",
	"<PolicyName>", "USA_mailboxes", "<PolicyName or ID>", "Contoso_Global", "<DataEncryptionPolicyIdParameter>", "USA_mailboxes",
	"<KeyVaultURI1, KeyVaultURI2>", "https://a.vault.azure.net/keys/k, https://b.vault.azure.net/keys/k", `[-Description <String>]`, `-Description "For all"`,
	"<KeyVaultURI1>", "https://a.vault.azure.net/keys/k", "<KeyVaultURI2>", "https://b.vault.azure.net/keys/k",
	"<MailboxIdParameter>", "alice@contoso.com", "<MailUserIdParameter>", "bob@contoso.com", "<GeneralMailboxOrMailUserIdParameter>", "alice@contoso.com",
	"<mailbox alias>", "alice@contoso.com", "<mailbox>", "alice@contoso.com", "<GUID>", guid2, "<DataEncryptionPolicyID>", guid2, "<Policy ID>", guid1,
	`-[Identity] "PolicyName"`, `-Identity "Contoso_Global"`, "<SPOAdminSiteUrl>", "https://contoso-admin.sharepoint.com",
	"<PrimaryKeyVaultName>", "stageRG3vault", "<PrimaryKeyName>", "SPKey3", "<PrimaryKeyVersion>", version(3),
	"<SecondaryKeyVaultName>", "stageRG5vault", "<SecondaryKeyName>", "SPKey5", "<SecondaryKeyVersion>", version(5),
	"<ReplacementKeyVaultName>", "stageRG3vault", "<ReplacementKeyName>", "SPKey3", "<ReplacementKeyVersion>", version(4),
	"<Primary | Secondary>", "Primary", "< KeyVault | ManagedHSM>", "ManagedHSM", "<Reason>", `"We leave"`, "<ContactName>", `"Ann"`)

// TestDocumentedLinesRunAsPrinted runs every line of the pages; the same lines
// run against a whole node in the node's tests.
func TestDocumentedLinesRunAsPrinted(t *testing.T) {
	blocks := documented(t)
	if len(blocks) < 60 {
		t.Fatalf("%d blocks", len(blocks))
	}
	t.Chdir(t.TempDir())
	s := newSession(newRecorder().options(new(bytes.Buffer), new(bytes.Buffer)))
	s.Options.Confirm = func(context.Context, string) (bool, error) { return true, nil }
	for _, b := range blocks {
		text := filled.Replace(b.text)
		if strings.ContainsAny(text, "<>[]") {
			t.Errorf("%s: something is left open: %s", b.name, text)
		}
		if err := s.run(t.Context(), text); err != nil {
			t.Errorf("%s: %s\n%v", b.name, text, err)
		}
	}
}

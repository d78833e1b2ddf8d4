package node_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

// The services of the documentation, by their application ids.
const (
	exchange   = "00000002-0000-0ff1-ce00-000000000000"
	sharePoint = "00000003-0000-0ff1-ce00-000000000000"
	workloads  = "c066d759-24ae-40e7-a56f-027002b5d3e4"
)

// lab is a node under Azure's own vault domain, with the vaults and keys that
// the documentation's examples name.
type lab struct {
	*nodetest.World
	t *testing.T
}

// stood are the vaults of the lab, with the service principal that may use each, and its
// key.
var stood = []struct{ vault, service, key string }{
	{"Contoso-CK-EX-NA-VaultA1", exchange, ""}, {"Contoso-CK-EX-NA-VaultA2", exchange, "Contoso-CK-EX-NA-VaultA2-Key001"},
	{"Contoso-O365SP-NA-VaultA1", sharePoint, ""}, {"Contoso-CK-SP-NA-VaultA1", sharePoint, ""}, {"mmcexchangevault", workloads, ""},
	{"contosoWestUSvault1", workloads, "Key_01"}, {"contosoCentralUSvault1", workloads, "Key_02"},
	{"contoso_EastUSvault02", exchange, "USA_key_01"}, {"contoso_CentralUSvault02", exchange, "USA_Key_02"},
	{"stageRG3vault", sharePoint, "SPKey3"}, {"stageRG5vault", sharePoint, "SPKey5"}, {"Contoso-Restored", exchange, ""},
}

// newLab starts a lab; in an idle one no roll makes progress.
func newLab(t *testing.T, still bool) lab {
	l := lab{nodetest.Start(t, node.Options{VaultDomain: "vault.azure.net", Idle: still}), t}
	l.AnswerYes()
	for i, s := range stood {
		l.Script(fmt.Sprintf("New-AzKeyVault -VaultName %s -ResourceGroupName Contoso-CK -Location %s -Sku Premium -EnablePurgeProtection", s.vault, []string{"westus", "centralus"}[i%2]),
			fmt.Sprintf("Set-AzKeyVaultAccessPolicy -VaultName %s -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName %s", s.vault, s.service))
		if s.key != "" {
			l.addVersion(s.vault, s.key)
		}
	}
	// The story destroys a key of this vault.
	l.Script("New-AzKeyVault -VaultName Contoso-O365EX-NA-VaultA1 -ResourceGroupName Contoso-CK -Location westus -Sku Premium")
	l.Mailbox("alice@contoso.com", "")
	l.Script("New-MailUser -Name bob@contoso.com -ExternalEmailAddress bob@mail.contoso.local")
	l.Site("https://contoso.sharepoint.com/sites/finance")
	return l
}

func (l lab) addVersion(vault, key string) {
	l.t.Helper()
	l.Script(fmt.Sprintf("Add-AzKeyVaultKey -VaultName %s -Name %s -Destination HSM -KeyOps wrapKey,unwrapKey", vault, key))
}

// newestVersion is the newest version of a key.
func (l lab) newestVersion(vault, key string) string {
	l.t.Helper()
	return strings.TrimSpace(l.Script(fmt.Sprintf("(Get-AzKeyVaultKey -VaultName %s -Name %s).Version", vault, key)))
}

// waitForRolls waits until no roll runs.
func (l lab) waitForRolls() {
	l.t.Helper()
	all, err := l.Client.ListPolicies(l.t.Context(), api.ListInput{})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, p := range all.Items {
		if p.Roll != nil && p.Roll.State == api.RollRunning {
			l.FinishRoll(p.ID)
		}
	}
}

// TestDocumentedLinesRunAsPrintedOnANode runs every command line of the pages,
// in the order of testdata/documented.ps1 of the cmdlets, with values in place
// of what they leave open.
func TestDocumentedLinesRunAsPrintedOnANode(t *testing.T) {
	raw, err := os.ReadFile("../cmdlet/testdata/documented.ps1")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	l := newLab(t, false)
	subscription := strings.Split(strings.TrimSpace(l.Script("(Get-AzKeyVault -VaultName mmcexchangevault).ResourceId")), "/")[2]
	rotate := func() {
		l.addVersion("contosoWestUSvault1", "Key_01")
		l.addVersion("contosoCentralUSvault1", "Key_02")
	}
	leaveSites := func() {
		if _, err := l.Client.LeavePolicy(t.Context(), api.LeavePolicyInput{PolicyInput: api.PolicyInput{Policy: "Sites"}}); err != nil {
			t.Fatal(err)
		}
		l.waitForRolls()
	}
	// Actions before a block that the page assumes.
	before := map[string]func(){
		"restore a key, example": func() {
			_, err := l.TryScript("Restore-AzKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -InputFile Contoso-O365EX-NA-VaultA1-Key001-Backup-20170802.backup")
			if err == nil {
				t.Error("a key is restored over one of its name")
			}
			l.Script("Remove-AzKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001",
				"Remove-AzKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001 -InRemovedState")
		},
		"roll: multi-workload":          rotate,
		"roll: multi-workload, example": rotate,
		"roll: sites, primary":          func() { l.addVersion("stageRG3vault", "SPKey3") },
		"roll: sites, secondary":        func() { l.addVersion("stageRG5vault", "SPKey5") },
		"disable a multi-workload policy, example": func() {
			l.Script("Set-M365DataAtRestEncryptionPolicyAssignment -DataEncryptionPolicy $null")
			l.waitForRolls()
		},
		"purge": func() {
			for _, vault := range []string{"Contoso-CK-EX-NA-VaultA1", "Contoso-CK-EX-NA-VaultA2"} {
				l.Script(fmt.Sprintf("Remove-AzKeyVaultAccessPolicy -VaultName %s -ServicePrincipalName %s", vault, exchange))
			}
		},
		"site policy, example": leaveSites,
		"site policy, 2019":    leaveSites,
	}
	// Checks after a block: a line and its output.
	after := map[string][2]string{
		"complete the registration, 2019":           {"(Get-AzProviderFeature -ProviderNamespace Microsoft.Resources -FeatureName mandatoryRetentionPeriodEnabled).RegistrationState", "Registered"},
		"add a key":                                 {"(Get-AzKeyVaultKey -VaultName Contoso-CK-EX-NA-VaultA1 -Name Contoso-CK-EX-NA-VaultA1-Key001).Attributes.RecoveryLevel", "Recoverable+ProtectedSubscription"},
		"change expiry":                             {"(Get-AzKeyVaultKey -VaultName Contoso-CK-EX-NA-VaultA1 -Name Contoso-CK-EX-NA-VaultA1-Key001).Expires -eq '12/31/9999'", "True"},
		"assign the multi-workload policy, example": {"(Get-M365DataAtRestEncryptionPolicyAssignment).Name", "Contoso_Global"},
		"assign a policy to a mailbox":              {"(Get-MailboxStatistics alice@contoso.com).DataEncryptionPolicy", "Contoso_Mail"},
		"assign a policy before a migration":        {"(Get-MailUser bob@contoso.com).DataEncryptionPolicy", "CN=Contoso_Mail,CN=Data Encryption Policies,CN=keyroll"},
		"site policy":                               {"(Get-SPOSiteDataEncryptionPolicy https://contoso.sharepoint.com/sites/finance).State", "Registered"},
		"disable a multi-workload policy":           {"(Get-M365DataAtRestEncryptionPolicy Contoso_Other).Enabled", "False"},
		"restore a key, example":                    {"(Get-AzKeyVaultKey Contoso-O365EX-NA-VaultA1 Contoso-O365EX-NA-VaultA1-Key001).Enabled", "True"},
		"remove an administrator, example":          {"(Get-AzKeyVault Contoso-O365EX-NA-VaultA1).AccessPolicies.DisplayName -contains 'alice@contoso.com'", "False"},
		"roll: mailboxes":                           {"(Get-MailboxStatistics alice@contoso.com).DataEncryptionPolicyID -eq (Get-DataEncryptionPolicy Contoso_Mail).DataEncryptionPolicyID", "True"},
		"roll: sites, secondary":                    {"(Get-SPODataEncryptionPolicy).State", "Registered"},
		"back to the service's keys":                {"(Get-MailUser bob@contoso.com).DataEncryptionPolicy -eq $null", "True"},
		"purge":                                     {"(Get-DataEncryptionPolicy Contoso_Mail).PermanentDataPurgeRequested", "True"},
		"site policy, example":                      {"(Get-SPODataEncryptionPolicy).State", "Registered"},
		"site policy, 2019":                         {"(Get-SPOSiteDataEncryptionPolicy https://contoso.sharepoint.com/sites/finance).State", "Registered"},
	}
	// Values for placeholders of a block that differ between blocks.
	inBlock := map[string][]string{
		"multi-workload policy":            {"<PolicyName>", "Contoso_Other"},
		"assign the multi-workload policy": {"<PolicyName or ID>", "Contoso_Other"},
		"disable a multi-workload policy":  {`-[Identity] "PolicyName"`, `-Identity "Contoso_Other"`},
		"restore a key":                    {"<vault name>", "Contoso-Restored"},
		"roll: sites, secondary": {"<ReplacementKeyVaultName>", "stageRG5vault", "<ReplacementKeyName>", "SPKey5",
			"<Primary | Secondary>", "Secondary"},
	}
	for _, part := range strings.Split(string(raw), "\n\n")[1:] {
		name, text, _ := strings.Cut(strings.TrimPrefix(part, "# "), "\n")
		if prepare := before[name]; prepare != nil {
			prepare()
		}
		replacement := "SPKey3"
		if name == "roll: sites, secondary" {
			replacement = "SPKey5"
		}
		show := func(identity string) string {
			p, err := l.Client.ShowPolicy(t.Context(), api.PolicyInput{Policy: identity})
			if err != nil {
				return identity
			}
			return p.ID
		}
		values := append(inBlock[name], "<SubscriptionId>", subscription, "<vault name>", "Contoso-CK-EX-NA-VaultA1", "<key name>", "Contoso-CK-EX-NA-VaultA1-Key001",
			"<vaultname>", "Contoso-O365EX-NA-VaultA1", "<keyname>", "Contoso-O365EX-NA-VaultA1-Key001",
			"<UPN of user>", "alice@contoso.com", "<Office 365 appID>", exchange, "TBD", sharePoint, "<HSM|Software>", "HSM",
			"<filename.backup>", "a.backup", "<filename .backup>", "b.backup", "<filename>", "a.backup",
			"<PolicyName>", "Contoso_Mail", "<DataEncryptionPolicyIdParameter>", show("Contoso_Mail"),
			"<KeyVaultURI1, KeyVaultURI2>", "https://contosoWestUSvault1.vault.azure.net/keys/Key_01, https://contosoCentralUSvault1.vault.azure.net/keys/Key_02",
			`[-Description <String>]`, `-Description "For all"`,
			"<KeyVaultURI1>", "https://Contoso-CK-EX-NA-VaultA1.vault.azure.net/keys/Contoso-CK-EX-NA-VaultA1-Key001",
			"<KeyVaultURI2>", "https://Contoso-CK-EX-NA-VaultA2.vault.azure.net/keys/Contoso-CK-EX-NA-VaultA2-Key001",
			"<MailboxIdParameter>", "alice@contoso.com", "<MailUserIdParameter>", "bob@contoso.com", "<GeneralMailboxOrMailUserIdParameter>", "alice@contoso.com",
			"<mailbox alias>", "alice@contoso.com", "<mailbox>", "bob@contoso.com", "<GUID>", l.PolicyID("alice@contoso.com"),
			"<DataEncryptionPolicyID>", l.PolicyID("alice@contoso.com"), "<Policy ID>", show("Contoso_Mail"),
			`-[Identity] "PolicyName"`, `-Identity "Contoso_Global"`, "<SPOAdminSiteUrl>", "https://contoso-admin.sharepoint.com",
			"<PrimaryKeyVaultName>", "stageRG3vault", "<PrimaryKeyName>", "SPKey3", "<PrimaryKeyVersion>", l.newestVersion("stageRG3vault", "SPKey3"),
			"<SecondaryKeyVaultName>", "stageRG5vault", "<SecondaryKeyName>", "SPKey5", "<SecondaryKeyVersion>", l.newestVersion("stageRG5vault", "SPKey5"),
			"f635a23bd4a44b9996ff6aadd88d42ba", l.newestVersion("stageRG3vault", "SPKey3"), "2b3e8f1d754f438dacdec1f0945f251a", l.newestVersion("stageRG5vault", "SPKey5"),
			"<ReplacementKeyVaultName>", "stageRG3vault", "<ReplacementKeyName>", "SPKey3", "<ReplacementKeyVersion>", l.newestVersion("stageRG"+replacement[5:]+"vault", replacement),
			"<Primary | Secondary>", "Primary", "< KeyVault | ManagedHSM>", "KeyVault", "<Reason>", `"We leave"`, "<ContactName>", `"Ann"`)
		text = strings.NewReplacer(values...).Replace(text)
		if out, err := l.TryScript(text); err != nil {
			t.Errorf("%s: %s\n%s%v", name, text, out, err)
		}
		l.waitForRolls()
		if want, ok := after[name]; ok {
			if got := strings.TrimSpace(l.Script(want[0])); got != want[1] {
				t.Errorf("%s: then %s gives %q, want %q", name, want[0], got, want[1])
			}
		}
	}
}

// TestDocumentedRefusalsAreRefused has the error conditions and the restrictions of
// the documentation, in an order in which each can be met.
func TestDocumentedRefusalsAreRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	l := newLab(t, true)
	const (
		first  = "https://contoso_EastUSvault02.vault.azure.net/keys/USA_key_01"
		second = "https://contoso_CentralUSvault02.vault.azure.net/keys/USA_Key_02"
		third  = "https://contosoWestUSvault1.vault.azure.net/keys/Key_01"
		fourth = "https://contosoCentralUSvault1.vault.azure.net/keys/Key_02"
	)
	register := fmt.Sprintf("Register-SPODataEncryptionPolicy -PrimaryKeyVaultName stageRG3vault -PrimaryKeyName SPKey3 -PrimaryKeyVersion %s -SecondaryKeyVaultName stageRG5vault -SecondaryKeyName SPKey5 -SecondaryKeyVersion %s",
		l.newestVersion("stageRG3vault", "SPKey3"), l.newestVersion("stageRG5vault", "SPKey5"))
	key := func(name, more string) string {
		return "Add-AzKeyVaultKey -VaultName contoso_EastUSvault02 -Name " + name + " -Destination Software " + more
	}
	policy := func(name string) string {
		return "New-DataEncryptionPolicy -Name " + name + " -AzureKeyIDs https://contoso_EastUSvault02.vault.azure.net/keys/" + name + ", " + second
	}
	for _, test := range []struct {
		why, before, line string
		code              api.Code
	}{
		{why: "a name that names nothing", line: "Get-DataEncryptionPolicy unknown", code: api.NotFound},
		{why: "one key", line: "New-DataEncryptionPolicy -Name p -AzureKeyIDs " + first, code: api.InvalidArgument},
		{why: "three keys", line: "New-DataEncryptionPolicy -Name p -AzureKeyIDs " + first + ", " + second + ", " + third, code: api.InvalidArgument},
		{why: "both keys in one vault", before: key("other", "-KeyOps wrapKey,unwrapKey"), line: "New-DataEncryptionPolicy -Name p -AzureKeyIDs " + first + ", https://contoso_EastUSvault02.vault.azure.net/keys/other", code: api.InvalidArgument},
		{why: "a key of an elliptic curve", before: key("curve", "-KeyType EC"), line: policy("curve"), code: api.KeyUnusable},
		{why: "a key that expires", before: key("ends", "-KeyOps wrapKey,unwrapKey -Expires 12/31/2099"), line: policy("ends"), code: api.KeyUnusable},
		{why: "a key that may not wrap", before: key("unwraps", "-KeyOps unwrapKey"), line: policy("unwraps"), code: api.KeyUnusable},
		{why: "a disabled key", before: key("off", "-KeyOps wrapKey,unwrapKey -Disable"), line: policy("off"), code: api.KeyUnusable},
		{why: "a site without a Customer Key", line: "Get-SPOSiteDataEncryptionPolicy https://contoso.sharepoint.com/sites/finance", code: api.Conflict},
		{why: "restoring a key over one of its name", before: "Backup-AzKeyVaultKey contoso_EastUSvault02 USA_key_01 a.backup", line: "Restore-AzKeyVaultKey contoso_EastUSvault02 a.backup", code: api.Conflict},
		{why: "purging a key of a vault with purge protection", before: key("gone", "") + "; Remove-AzKeyVaultKey contoso_EastUSvault02 gone", line: "Remove-AzKeyVaultKey contoso_EastUSvault02 gone -InRemovedState", code: api.Forbidden},
		{why: "a new key of a deleted one's name", line: key("gone", ""), code: api.Conflict},
		{why: "switching purge protection off", line: "Update-AzKeyVault contoso_EastUSvault02 -EnablePurgeProtection:$false", code: api.Conflict},
		{why: "a second policy of a geo", before: register, line: register, code: api.AlreadyExists},
		{why: "a second roll of sites", line: "Update-SPODataEncryptionPolicy -KeyVaultName stageRG3vault -KeyName SPKey3 -KeyVersion " + l.newestVersion("stageRG3vault", "SPKey3") + " -KeyType Primary", code: api.RollInProgress},
		{why: "rolling the availability key", line: "Update-SPODataEncryptionPolicy -KeyVaultName v -KeyName k -KeyVersion " + l.newestVersion("stageRG3vault", "SPKey3") + " -KeyType Availability", code: api.InvalidArgument},
		{why: "a second mailbox policy of the name", before: "New-DataEncryptionPolicy -Name USA_mailboxes -AzureKeyIDs " + first + ", " + second, line: "New-DataEncryptionPolicy -Name usa_MAILBOXES -AzureKeyIDs " + first + ", " + second, code: api.AlreadyExists},
		{why: "disabling the service's own policy", line: "Set-DataEncryptionPolicy Service-managed -Enabled $false", code: api.NotFound},
		{why: "assigning the service's own policy", line: "Set-Mailbox alice@contoso.com -DataEncryptionPolicy Service-managed", code: api.Conflict},
		{why: "a refresh without a new version", line: "Set-DataEncryptionPolicy USA_mailboxes -Refresh", code: api.NoNewVersion},
		{why: "disabling an assigned multi-workload policy", before: "New-M365DataAtRestEncryptionPolicy -Name Contoso_Global -AzureKeyIDs " + third + ", " + fourth + "; Set-M365DataAtRestEncryptionPolicyAssignment -DataEncryptionPolicy Contoso_Global",
			line: "Set-M365DataAtRestEncryptionPolicy Contoso_Global -Enabled $false", code: api.Conflict},
		{why: "a multi-workload policy on a mailbox", line: "Set-Mailbox alice@contoso.com -DataEncryptionPolicy Contoso_Global", code: api.Conflict},
		{why: "a purge while the service has rights on both keys", line: "Set-DataEncryptionPolicy USA_mailboxes -PermanentDataPurgeRequested -PermanentDataPurgeReason exit -PermanentDataPurgeContact Ann", code: api.Conflict},
		{why: "a purge while the service has rights on one key", before: "Remove-AzKeyVaultAccessPolicy contoso_EastUSvault02 -SPN " + exchange,
			line: "Set-DataEncryptionPolicy USA_mailboxes -PermanentDataPurgeRequested -PermanentDataPurgeReason exit -PermanentDataPurgeContact Ann", code: api.Conflict},
		{why: "assigning a policy whose purge is requested", before: "Remove-AzKeyVaultAccessPolicy contoso_CentralUSvault02 -SPN " + exchange +
			"; Set-DataEncryptionPolicy USA_mailboxes -PermanentDataPurgeRequested -PermanentDataPurgeReason exit -PermanentDataPurgeContact Ann",
			line: "Set-Mailbox alice@contoso.com -DataEncryptionPolicy USA_mailboxes", code: api.Conflict},
	} {
		if test.before != "" {
			if _, err := l.TryScript(test.before); err != nil {
				t.Errorf("%s: before: %v", test.why, err)
				continue
			}
		}
		if _, err := l.TryScript(test.line); fail.CodeOf(err) != test.code || err == nil {
			t.Errorf("%s: %v [%s], want %s", test.why, err, fail.CodeOf(err), test.code)
		}
	}
}

package node_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"keyroll/api"
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

// stood are the vaults of the lab: what of the service may use them, and their key.
var stood = []struct{ vault, service, key string }{
	{"Contoso-CK-EX-NA-VaultA1", exchange, ""}, {"Contoso-CK-EX-NA-VaultA2", exchange, "Contoso-CK-EX-NA-VaultA2-Key001"},
	{"Contoso-O365SP-NA-VaultA1", sharePoint, ""}, {"Contoso-CK-SP-NA-VaultA1", sharePoint, ""}, {"mmcexchangevault", workloads, ""},
	{"contosoWestUSvault1", workloads, "Key_01"}, {"contosoCentralUSvault1", workloads, "Key_02"},
	{"contoso_EastUSvault02", exchange, "USA_key_01"}, {"contoso_CentralUSvault02", exchange, "USA_Key_02"},
	{"stageRG3vault", sharePoint, "SPKey3"}, {"stageRG5vault", sharePoint, "SPKey5"}, {"Contoso-Restored", exchange, ""},
}

func newLab(t *testing.T) lab {
	l := lab{nodetest.Start(t, node.Options{VaultDomain: "vault.azure.net"}), t}
	l.AnswerYes()
	for i, s := range stood {
		l.Script(fmt.Sprintf("New-AzKeyVault -VaultName %s -ResourceGroupName Contoso-CK -Location %s -Sku Premium -EnablePurgeProtection", s.vault, []string{"westus", "centralus"}[i%2]),
			fmt.Sprintf("Set-AzKeyVaultAccessPolicy -VaultName %s -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName %s", s.vault, s.service))
		if s.key != "" {
			l.add(s.vault, s.key)
		}
	}
	// Of this vault the story destroys a key.
	l.Script("New-AzKeyVault -VaultName Contoso-O365EX-NA-VaultA1 -ResourceGroupName Contoso-CK -Location westus -Sku Premium")
	l.Mailbox("alice@contoso.com", "")
	l.Script("New-MailUser -Name bob@contoso.com -ExternalEmailAddress bob@mail.contoso.local")
	l.Site("https://contoso.sharepoint.com/sites/finance")
	return l
}

func (l lab) add(vault, key string) {
	l.t.Helper()
	l.Script(fmt.Sprintf("Add-AzKeyVaultKey -VaultName %s -Name %s -Destination HSM -KeyOps wrapKey,unwrapKey", vault, key))
}

// version is the newest version of a key.
func (l lab) version(vault, key string) string {
	l.t.Helper()
	return strings.TrimSpace(l.Script(fmt.Sprintf("(Get-AzKeyVaultKey -VaultName %s -Name %s).Version", vault, key)))
}

// settle waits until no roll runs.
func (l lab) settle() {
	l.t.Helper()
	all, err := l.Client.ListPolicies(l.t.Context(), api.None{})
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
	l := newLab(t)
	subscription := strings.Split(strings.TrimSpace(l.Script("(Get-AzKeyVault -VaultName mmcexchangevault).ResourceId")), "/")[2]
	rotate := func() {
		l.add("contosoWestUSvault1", "Key_01")
		l.add("contosoCentralUSvault1", "Key_02")
	}
	leaveSites := func() {
		if _, err := l.Client.LeavePolicy(t.Context(), api.PolicyInput{Policy: "Sites"}); err != nil {
			t.Fatal(err)
		}
		l.settle()
	}
	// What happens before a block: others' work, which the page takes for granted.
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
		"roll: sites, primary":          func() { l.add("stageRG3vault", "SPKey3") },
		"roll: sites, secondary":        func() { l.add("stageRG5vault", "SPKey5") },
		"disable a multi-workload policy, example": func() {
			l.Script("Set-M365DataAtRestEncryptionPolicyAssignment -DataEncryptionPolicy $null")
			l.settle()
		},
		"purge": func() {
			for _, vault := range []string{"Contoso-CK-EX-NA-VaultA1", "Contoso-CK-EX-NA-VaultA2"} {
				l.Script(fmt.Sprintf("Remove-AzKeyVaultAccessPolicy -VaultName %s -ServicePrincipalName %s", vault, exchange))
			}
		},
		"site policy, example": leaveSites,
		"site policy, 2019":    leaveSites,
	}
	// What a block leaves open, where it is not the same in all of them.
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
			"<PrimaryKeyVaultName>", "stageRG3vault", "<PrimaryKeyName>", "SPKey3", "<PrimaryKeyVersion>", l.version("stageRG3vault", "SPKey3"),
			"<SecondaryKeyVaultName>", "stageRG5vault", "<SecondaryKeyName>", "SPKey5", "<SecondaryKeyVersion>", l.version("stageRG5vault", "SPKey5"),
			"f635a23bd4a44b9996ff6aadd88d42ba", l.version("stageRG3vault", "SPKey3"), "2b3e8f1d754f438dacdec1f0945f251a", l.version("stageRG5vault", "SPKey5"),
			"<ReplacementKeyVaultName>", "stageRG3vault", "<ReplacementKeyName>", "SPKey3", "<ReplacementKeyVersion>", l.version("stageRG"+replacement[5:]+"vault", replacement),
			"<Primary | Secondary>", "Primary", "< KeyVault | ManagedHSM>", "KeyVault", "<Reason>", `"We leave"`, "<ContactName>", `"Ann"`)
		text = strings.NewReplacer(values...).Replace(text)
		if out, err := l.TryScript(text); err != nil {
			t.Errorf("%s: %s\n%s%v", name, text, out, err)
		}
		l.settle()
	}
}

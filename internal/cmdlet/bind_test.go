package cmdlet

import (
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/cmdlet/syntax"
	"keyroll/internal/fail"
)

func TestArgumentsBindAsPowerShellBinds(t *testing.T) {
	tests := []struct{ line, calls string }{
		{"set-mailbox alice -data USA_mailboxes", `AssignMailbox alice "USA_mailboxes"`},
		{"Set-Mailbox -DataEncryptionPolicy USA_mailboxes alice", `AssignMailbox alice "USA_mailboxes"`},
		{"SET-DATAENCRYPTIONPOLICY -ref USA_mailboxes", "RefreshPolicy USA_mailboxes {Depth: AllGenerations:false}"},
		{"Set-DataEncryptionPolicy USA_mailboxes -Refresh:$true -Depth root -AllGenerations", "RefreshPolicy USA_mailboxes {Depth:root AllGenerations:true}"},
		{"Set-DataEncryptionPolicy USA_mailboxes -Refresh -Depth Container", "RefreshPolicy USA_mailboxes {Depth:container AllGenerations:false}"},
		{"Set-DataEncryptionPolicy USA_mailboxes -Refresh -Confirm:$false", "RefreshPolicy USA_mailboxes {Depth: AllGenerations:false}"},
		{"Get-DataEncryptionPolicy USA_mailboxes ", "ShowPolicy USA_mailboxes"},
		{"Get-DataEncryptionPolicy | Set-DataEncryptionPolicy -Refresh", "ListPolicies; RefreshPolicy USA_mailboxes {Depth: AllGenerations:false}"},
		{"'alice@contoso.com','bob@contoso.com' | Get-MailboxStatistics", "ShowMailbox alice@contoso.com; ShowMailbox bob@contoso.com"},
		{"Get-Mailbox | Set-Mailbox -DataEncryptionPolicy $null", `ListMailboxes {After: Limit:1000}; AssignMailbox alice@contoso.com ""; AssignMailbox bob@contoso.com ""`},
		{"Get-SPOSite | Get-SPOSiteDataEncryptionPolicy",
			"ListSites; ShowSite https://contoso.sharepoint.com/sites/a; ListGeos; ShowPolicy Sites; ShowSite https://contoso.sharepoint.com/sites/b; ListGeos; ShowPolicy Sites"},
		{"Get-AzKeyVault | Get-AzKeyVaultKey", "ListVaults; ListKeys Contoso-A"},
		{"Get-AzKeyVaultKey Contoso-A Key001 -IncludeVersions | Update-AzKeyVaultKey -Enable $false",
			"ListKeyVersions Contoso-A Key001; ListKeyUsage Contoso-A Key001 " + version(2) + "; UpdateKey Contoso-A Key001 " + version(2) + "  0 [] enabled=false; ListKeyUsage Contoso-A Key001 " + version(1) + "; UpdateKey Contoso-A Key001 " + version(1) + "  0 [] enabled=false"},
		{"Get-Mailbox | select -First 1 | Get-MailboxStatistics", "ListMailboxes {After: Limit:1000}; ShowMailbox alice@contoso.com"},
		{"$n = 'alice@contoso.com'; Get-MailboxStatistics $n", "ShowMailbox alice@contoso.com"},
		{"Add-AzKeyVaultKey v k -Dest Software -KeyType EC", "CreateKey v k EC 0 [] enabled=true"},
		{"Add-AzKeyVaultKey v k -Destination HSM -Size 3072 -Disable -Expires 2027-01-01", "CreateKey v k RSA-HSM 3072 [] enabled=false exp=2027-01-01T00:00:00Z"},
		{"New-Mailbox 007", "CreateMailbox {Name:007 Type:UserMailbox ExternalAddress: Policy:}"},
		{"New-Mailbox 1.10", "CreateMailbox {Name:1.10 Type:UserMailbox ExternalAddress: Policy:}"},
		{"Get-Mailbox | ? { $_.State -eq 'Inactive' -and -not $_.DataEncryptionPolicy } | % { Set-Mailbox $_.Identity -DataEncryptionPolicy USA_mailboxes }",
			`ListMailboxes {After: Limit:1000}; AssignMailbox bob@contoso.com "USA_mailboxes"`},
	}
	for _, test := range tests {
		got := mustRun(t, test.line, nil)
		if calls := strings.Join(got.calls, "; "); calls != test.calls {
			t.Errorf("%s\n got %s\nwant %s", test.line, calls, test.calls)
		}
	}
}

func TestInvalidScriptsAreRefusedBeforeAnythingRuns(t *testing.T) {
	tests := []struct{ text, want string }{
		{"Get-Mailbx", "Get-Mailbx: 2:1: is not a cmdlet | did you mean Get-Mailbox?"},
		{"Frobnicate-All", "Frobnicate-All: 2:1: is not a cmdlet | Get-Command lists the cmdlets"},
		{"Set-DataEncryptionPolicy USA_mailboxes -Refesh", "Set-DataEncryptionPolicy: 2:40: has no parameter -Refesh | did you mean -Refresh?"},
		{"Set-Mailbox alice -Quota 5", "Set-Mailbox: 2:19: has no parameter -Quota | Get-Help Set-Mailbox shows its parameters"},
		{"Update-SPODataEncryptionPolicy -Key x", "Update-SPODataEncryptionPolicy: 2:32: -Key is ambiguous: it may be any of -KeyVaultName, -KeyName, -KeyVersion, -KeyVaultUri, -KeyType, -KeyVaultType | write more of the name"},
		{"Set-Mailbox alice", "Set-Mailbox: 2:1: needs -DataEncryptionPolicy | Get-Help Set-Mailbox shows its parameters"},
		{"Get-MailboxStatistics", "Get-MailboxStatistics: 2:1: needs -Identity | Get-Help Get-MailboxStatistics shows its parameters"},
		{"Get-MailboxStatistics alice bob", "Get-MailboxStatistics: 2:29: has no parameter for a further argument by position | Get-Help Get-MailboxStatistics shows its parameters"},
		{"Get-MailboxStatistics -Identity", "Get-MailboxStatistics: 2:23: -Identity needs a value"},
		{"Get-MailboxStatistics -Identity a -id b", "Get-MailboxStatistics: 2:35: -Identity is given twice"},
		{"Get-Mailbox | New-AzKeyVault rg west -Name | fl", "New-AzKeyVault: 2:38: -VaultName needs a value"},
		{"'a' | Get-Command", "Get-Command: 2:7: does not accept input from a pipeline"},
		{"Update-SPODataEncryptionPolicy -KeyVaultUri u -KeyName k -KeyType Primary", "Update-SPODataEncryptionPolicy: 2:47: -KeyVaultUri and -KeyName cannot be used together"},
		{"Update-SPODataEncryptionPolicy -KeyVaultName v -KeyName k -KeyType Primary", "Update-SPODataEncryptionPolicy: 2:1: needs -KeyVersion | Get-Help Update-SPODataEncryptionPolicy shows its parameters"},
		{"Update-SPODataEncryptionPolicy -KeyVaultUri u -KeyType Primry", "Update-SPODataEncryptionPolicy: 2:56: -KeyType must be one of Primary, Secondary, Availability, found \"Primry\" | did you mean Primary?"},
		{"Update-SPODataEncryptionPolicy -KeyVaultName v -KeyName k -KeyVersion VERSION -KeyType Primary",
			"Update-SPODataEncryptionPolicy: 2:71: \"VERSION\" is not a valid key version | a key version is 32 hexadecimal digits: Get-AzKeyVaultKey -VaultName VAULT -Name KEY -IncludeVersions lists them"},
		{"Add-AzKeyVaultKey v k -Destination HSM -Size big", "Add-AzKeyVaultKey: 2:46: -Size needs a whole number, found \"big\""},
		{"Add-AzKeyVaultKey v k -Destination HSM -NotBefore 27/12/2016", "Add-AzKeyVaultKey: 2:51: \"27/12/2016\" is not a valid date | write month/day/year as in \"12/27/2016 12:01 AM\", or 2016-12-27T00:01:00Z"},
		{"Set-Mailbox $polcy -DataEncryptionPolicy a", "$polcy: 2:13: has not been set | did you mean $policy?"},
		{"\"x $unknown\"", "$unknown: 2:4: has not been set"},
		{"Set-Mailbox $_.Identity -DataEncryptionPolicy a", "$_: 2:13: has a value only in the script block of a pipeline"},
		{"Get-Mailbox | % $policy", "ForEach-Object: 2:17: -Process needs a script block in braces, found"},
		{"Get-Mailbox -Identity $null,b", "Get-Mailbox: 2:23: -Identity needs one value, found 2"},
		{"Set-Mailbox $null -DataEncryptionPolicy a", "Set-Mailbox: 2:13: -Identity is $null | give it a value"},
		{"Set-Mailbox '' -DataEncryptionPolicy a", "Set-Mailbox: 2:13: -Identity is empty"},
		{"Get-Mailbox 'alice", "ParserError: 2:13: the string that begins here is not closed: expected '"},
		{"Get-Mailbox | % { Get-Date", "ParserError: 2:27: expected } to close the { at 2:17, found the end of the text"},
		{"Set-AzKeyVaultAccessPolicy v -PermissionsToKeys 'wrapKeys' -Obj " + guid1, "Set-AzKeyVaultAccessPolicy: 2:49: -PermissionsToKeys must be one of all, get"},
	}
	for _, test := range tests {
		r := newRecorder()
		got := refusal(t, r, "$policy = New-Mailbox first\n"+test.text)
		if !strings.HasPrefix(got, test.want) {
			t.Errorf("%s\n got %s\nwant %s", test.text, got, test.want)
		}
		// The value of a variable is only known at run time.
		if len(r.calls) > 0 && !strings.Contains(test.text, "% $policy") {
			t.Errorf("%s: ran %v", test.text, r.calls)
		}
	}
}

// FuzzCheck passes arbitrary text to the checks before a run: they return an error with a
// position, or accept it.
func FuzzCheck(f *testing.F) {
	for _, c := range Table() {
		f.Add(c.Example)
	}
	f.Add("$a = 1; $b; Get-Mailbox -Identity:$a, 'b' -ResultSize 5 extra")
	f.Add("Get-SPOSite | ? { $_.Url -like \"*$x*\" } | fl *, [a-\\z]")
	f.Add("Add-AzKeyVaultKey v k -Dest:hsm -Size 1e9 -NotB '2/30/2026' -KeyOps @()")
	f.Fuzz(func(t *testing.T, text string) {
		script, err := syntax.Parse(text)
		if err != nil {
			return
		}
		_, err = newSession(Options{}).check(script)
		if err == nil {
			return
		}
		if code := fail.CodeOf(public(err)); code != api.SyntaxError && code != api.InvalidArgument {
			t.Fatalf("%q: %v [%s]", text, err, code)
		}
		if l, ok := err.(*located); !ok || l.pos.Line < 1 || l.pos.Column < 1 {
			t.Fatalf("%q: %v has no place", text, err)
		}
	})
}

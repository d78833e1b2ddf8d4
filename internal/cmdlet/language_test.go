package cmdlet

import (
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
)

func TestExpressionsHavePowerShellsValues(t *testing.T) {
	tests := []struct{ text, want string }{
		{"'a' -eq 'A'", "true"},
		{"'a' -ne 'b'", "true"},
		{"2 -gt 10", "false"},
		{"'2' -gt '10'", "true"},
		{"2 -lt '10'", "true"},
		{"1.5 -ge 1.5", "true"},
		{"3 -le 2", "false"},
		{"'USA_mailboxes' -like 'usa_*'", "true"},
		{"'USA_mailboxes' -like 'usa?mail[a-m]oxes'", "true"},
		{"'a.c' -like 'abc'", "false"},
		{"'x' -notlike 'y*'", "true"},
		{"'a','b' -contains 'B'", "true"},
		{"'c' -in @('a','b')", "false"},
		{"('a','b','a' -eq 'a').Count", "2"},
		{"-not $true -or 1 -eq 1", "true"},
		{"$true -and !$false -and 'x'", "true"},
		{"$null -eq $null", "true"},
		{"$null -eq ''", "false"},
		{"!@()", "true"},
		{"$true -eq 'anything'", "true"},
		{"(Get-Date '1/2/2026') -lt (Get-Date '2026-01-03')", "true"},
		{"(Get-Date) -gt '12/27/2016 12:01 AM'", "true"},
		{"(Get-Mailbox).Count", "2"},
		{"(Get-Mailbox alice@contoso.com).Count", "1"},
		{"'abc'.Length", "3"},
		{"(Get-Mailbox).Name", `"alice@contoso.com" "bob@contoso.com"`},
		{"(Get-Mailbox alice@contoso.com).Nothing", ""},
		{"$a = 1,2; \"$a ${a}x `$a\"", `"1 2 1 2x $a"`},
		{"$d = Get-Date '12/27/2016 12:01 AM'; \"$d\"", `"12/27/2016 00:01:00"`},
		{"@(1\n2,3) | % { $_ }", "1 2 3"},
		{"3,1,2 | Sort-Object", "1 2 3"},
		{"3,1,2 | sort -desc | select -Last 2", "2 1"},
		{"Get-Mailbox | sort State -Descending | % { $_.State }", `"inactive" "active"`},
		{"1,2,3 | ? { $_ -ge 2 } | select -First 1", "2"},
		{"1,2 | % { $x = $_; 'a','b' | % { \"$x$_\" } | select -First 1 }", `"1a" "2a"`},
		{"'a','b' | % { 1,2,3 } | select -First 4", "1 2 3 1"},
		{"(1,2,3 | Measure-Object).Count", "3"},
		{"Get-MailboxStatistics alice@contoso.com | select -ExpandProperty TotalItemSize", "1234567"},
		{"(Get-DataEncryptionPolicy USA_mailboxes).AzureKeyIDs | % { $_ }", `"https://vaultA1.vault.azure.net/keys/Key001" "https://vaultA2.vault.azure.net/keys/Key002"`},
	}
	for _, test := range tests {
		got := mustRun(t, test.text, asJSON)
		if out := strings.Join(strings.Fields(strings.ReplaceAll(got.out, "\n", " ")), " "); out != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.text, out, test.want)
		}
	}
}

func TestDatesAreMonthDayYearInUTC(t *testing.T) {
	for text, want := range map[string]string{
		"12/27/2016 12:01 AM":       "2016-12-27T00:01:00Z",
		"12/27/2016 1:01:02 pm":     "2016-12-27T13:01:02Z",
		"1/2/2026":                  "2026-01-02T00:00:00Z",
		"1/2/2026 23:59":            "2026-01-02T23:59:00Z",
		"2026-01-02":                "2026-01-02T00:00:00Z",
		"2026-01-02T03:04:05+01:00": "2026-01-02T02:04:05Z",
		"12/31/9999":                "9999-12-31T00:00:00Z",
	} {
		got, err := parseTime(text)
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "27/12/2016", "12/27", "tomorrow", "2/30/2026"} {
		if got, err := parseTime(text); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestStatementThatFailsEndsTheRun(t *testing.T) {
	r := newRecorder()
	got := runWith(r, "New-Mailbox first\n\n  Get-Mailbox unknown | fl\nNew-Mailbox second", nil)
	code, detail, hint := fail.Public(got.failure)
	if code != api.NotFound || detail != `Get-Mailbox: 3:3: mailbox "unknown" does not exist` || hint != "keyroll mailbox list shows them" {
		t.Errorf("%s, %s, %s", code, detail, hint)
	}
	if calls := strings.Join(r.calls, "; "); calls != "CreateMailbox {Name:first Type:UserMailbox ExternalAddress: Policy:}; ShowMailbox unknown" {
		t.Errorf("calls %s", calls)
	}
	if !strings.Contains(got.out, "first") {
		t.Errorf("what came before is not shown: %q", got.out)
	}
}

func TestErrorsKeepTheirCode(t *testing.T) {
	for _, test := range []struct {
		cause error
		code  api.Code
		text  string
	}{
		{&api.Problem{Code: api.RollInProgress, Detail: "a roll runs: 37 %"}, api.RollInProgress, "Set-DataEncryptionPolicy: 1:1: a roll runs: 37 %"},
		{fail.New(api.KeyUnusable, "key is disabled"), api.KeyUnusable, "Set-DataEncryptionPolicy: 1:1: key is disabled"},
	} {
		r := newRecorder()
		r.fail = map[string]error{"RefreshPolicy": test.cause}
		got := runWith(r, "Set-DataEncryptionPolicy USA_mailboxes -Refresh", nil)
		if fail.CodeOf(got.failure) != test.code || got.failure.Error() != test.text {
			t.Errorf("%v [%s]", got.failure, fail.CodeOf(got.failure))
		}
	}
	if code := fail.CodeOf(runWith(newRecorder(), "Get-Mailbox 'a", nil).failure); code != api.SyntaxError {
		t.Errorf("code %s", code)
	}
}

func TestRuntimeRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"Set-Mailbox (Get-Mailbox alice@contoso.com) -DataEncryptionPolicy a":    "Set-Mailbox: 1:13: -Identity needs a text, found an object | use a property of it, such as .Identity",
		"Set-Mailbox alice -DataEncryptionPolicy (Get-Mailbox).Name":             "Set-Mailbox: 1:41: -DataEncryptionPolicy needs one value, found 2",
		"Get-SPOSite | Get-MailboxStatistics":                                    "Get-MailboxStatistics: 1:15: the input from the pipeline has no value for -Identity",
		"Get-Mailbox | ? { $_.Name -gt 5 -and 5 -gt $_.Name }":                   `-gt: 1:40: -gt cannot compare "5" with "alice@contoso.com"`,
		"Get-Mailbox | select -exp Nmae":                                         "Select-Object: 1:15: the object has no property Nmae | did you mean Name?",
		"@() | % { $x = 1 }; $x":                                                 "$x: 1:21: has not been set",
		"Get-Mailbox -ResultSize many":                                           `Get-Mailbox: 1:1: -ResultSize must be a number or Unlimited, found "many"`,
		"Set-DataEncryptionPolicy p -Refresh -AllGenerations":                    "Set-DataEncryptionPolicy: 1:1: -AllGenerations can be used only with -Depth Root",
		"Set-AzKeyVaultAccessPolicy v -PermissionsToKeys get -SPN Exchange":      `Set-AzKeyVaultAccessPolicy: 1:1: "Exchange" is not a valid id of a principal | name a service by its application id, a GUID such as 00000002-0000-0ff1-ce00-000000000000`,
		"Get-SPODataEncryptionPolicy http://contoso":                             `Get-SPODataEncryptionPolicy: 1:1: "http://contoso" is not a valid URL of a site | write it as https://contoso-admin.sharepoint.com`,
		"Get-SPODataEncryptionPolicy asia":                                       `Get-SPODataEncryptionPolicy: 1:1: geo "asia" does not exist | keyroll geo list shows the geos`,
		"Add-AzKeyVaultKey v k -Destination HSM -Size 1024":                      "Add-AzKeyVaultKey: 1:1: -Size must be 2048, 3072 or 4096, found 1024",
		"Update-AzKeyVaultKey v k":                                               "Update-AzKeyVaultKey: 1:1: no change is given | give at least one of -Enable, -Expires, -NotBefore, -KeyOps",
		"Restore-AzKeyVaultKey v no/such/file":                                   "Restore-AzKeyVaultKey: 1:1: the backup cannot be read: open no/such/file: no such file or directory",
		"Backup-AzKeyVaultKey v k testdata/Key001.backup":                        "Backup-AzKeyVaultKey: 1:1: file testdata/Key001.backup exists | a backup does not overwrite a file; name another one",
		"Set-DataEncryptionPolicy p":                                             "Set-DataEncryptionPolicy: 1:1: no change is given | give at least one of -Refresh, -Replace, -Name, -Description, -Enabled",
		"Set-DataEncryptionPolicy Contoso_Global -Refresh":                       `Set-DataEncryptionPolicy: 1:1: no mailbox policy is named "Contoso_Global": that is a multi-workload policy | Get-DataEncryptionPolicy shows the mailbox policies`,
		"Get-DataEncryptionPolicy unknown":                                       `Get-DataEncryptionPolicy: 1:1: policy "unknown" does not exist`,
		"Set-DataEncryptionPolicy USA_mailboxes -PermanentDataPurgeReason exit":  "Set-DataEncryptionPolicy: 1:1: this is not supported: keyroll carries a purge out once two registered approvers have approved it | -PermanentDataPurgeRequested requests it; keyroll purge approve approves it",
		"Update-SPODataEncryptionPolicy -KeyVaultUri u -KeyType Availability":    "Update-SPODataEncryptionPolicy: 1:1: the availability key belongs to the service: a customer cannot replace it | the service rolls it on a schedule, and an operator with keyroll availability roll; a new policy has a new availability key",
		"Set-UnifiedGroup alice@contoso.com -DataEncryptionPolicy USA_mailboxes": `Set-UnifiedGroup: 1:1: no GroupMailbox is named "alice@contoso.com": that is a UserMailbox | Get-Recipient shows recipients of all types`,
		"Get-Recipient -Filter \"Polcy -eq 'x'\"":                                `Get-Recipient: 1:1: -Filter uses "Polcy", which is not a property that it supports`,
		"Get-Recipient -Filter 'Get-Mailbox'":                                    `Get-Recipient: 1:1: -Filter uses "Get", which is not a property that it supports`,
		"Get-Recipient -Filter '(Name -eq \"a\"'":                                `Get-Recipient: 1:1: -Filter "(Name -eq \"a\"" is not a valid condition: expected ) to close the ( at 1:1, found the end of the text | write it as "DataEncryptionPolicy -eq 'CN=NAME,CN=Data Encryption Policies,CN=keyroll'"`,
	} {
		if got := refusal(t, newRecorder(), text); got != want {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
}

func TestListsAreReadToTheirEnd(t *testing.T) {
	r := newRecorder()
	r.pages = 1
	got := runWith(r, "(Get-Mailbox).Count; Get-Mailbox -ResultSize 1 | % Name", nil)
	if got.failure == nil {
		t.Error("% takes a script block")
	}
	r.calls = nil
	got = runWith(r, "(Get-Mailbox).Count; (Get-Mailbox -ResultSize 1).Name; Get-Mailbox -ResultSize 0", nil)
	want := "ListMailboxes {After: Limit:1000}; ListMailboxes {After:alice@contoso.com Limit:1000}; ListMailboxes {After: Limit:1000}"
	if got.failure != nil || got.out != "2\nalice@contoso.com\n" || strings.Join(r.calls, "; ") != want {
		t.Errorf("%v, %q, %v", got.failure, got.out, r.calls)
	}
}

func TestLimitOfARollAtDepthRootIsShown(t *testing.T) {
	r := newRecorder()
	r.limit = "an old copy still opens"
	got := runWith(r, "Set-DataEncryptionPolicy USA_mailboxes -Refresh -Depth Root", asJSON)
	if got.failure != nil || got.out != "" || got.err != "WARNING: an old copy still opens\n" {
		t.Errorf("%v, %q, %q", got.failure, got.out, got.err)
	}
}

func TestLongVaultNameIsWarnedAbout(t *testing.T) {
	got := mustRun(t, "New-AzKeyVault Contoso-O365EX-NA-VaultA1 rg west", asJSON)
	if got.err != "WARNING: vault name Contoso-O365EX-NA-VaultA1 has 25 characters; Azure itself allows 24\n" || !strings.HasPrefix(got.out, "{") {
		t.Errorf("%q, %q", got.out, got.err)
	}
}

func TestSiteShowsItsOwnState(t *testing.T) {
	got := mustRun(t, "Get-SPOSite | Get-SPOSiteDataEncryptionPolicy | % { $_.State }", nil)
	if got.out != "Registered\nRolling\n" {
		t.Errorf("%q", got.out)
	}
	r := newRecorder()
	for i := range r.geos {
		r.geos[i].Policy = ""
	}
	if out := runWith(r, "(Get-SPODataEncryptionPolicy).State", nil).out; out != "Unregistered\n" {
		t.Errorf("%q", out)
	}
	want := "Get-SPOSiteDataEncryptionPolicy: 1:1: no site policy is registered | Register-SPODataEncryptionPolicy registers one"
	if got := refusal(t, r, "Get-SPOSiteDataEncryptionPolicy https://contoso.sharepoint.com/sites/a"); got != want {
		t.Error(got)
	}
}

package cmdlet

import (
	"strings"
	"testing"
)

func TestRecipientsAreFiltered(t *testing.T) {
	const usa = "CN=USA_mailboxes,CN=Data Encryption Policies,CN=keyroll"
	for _, test := range []struct{ line, want string }{
		{"Get-Recipient", "alice bob finance carol"},
		{`Get-Recipient -Filter "DataEncryptionPolicy -eq '` + usa + `'"`, "alice finance"},
		{`Get-Recipient -Filter "dataencryptionpolicy -eq 'USA_mailboxes'"`, ""}, // names do not compare
		{`Get-Recipient -Filter 'DataEncryptionPolicy -eq $null'`, "bob carol"},
		{`$dn = (Get-DataEncryptionPolicy USA_mailboxes).DistinguishedName; Get-Recipient -Filter "DataEncryptionPolicy -eq '$dn' -and (RecipientTypeDetails -ne 'GroupMailbox')"`, "alice"},
		{`Get-Recipient -Filter "Name -like 'b*' -or RecipientTypeDetails -eq 'MailUser'" -ResultSize 1`, "bob"},
		{"Get-Recipient -RecipientTypeDetails MailUser,GroupMailbox", "finance carol"},
		{"Get-Recipient alice@contoso.com", "alice"},
		{"Get-Mailbox", "alice bob finance"},
		{"Get-UnifiedGroup", "finance"},
		{"Get-MailUser", "carol"},
		{"Get-MailUser carol@contoso.com", "carol"},
	} {
		got := runWith(storyRecorder(), test.line+" | % { $_.Name }", nil)
		if names := strings.Join(strings.Fields(strings.ReplaceAll(got.out, "@contoso.com", "")), " "); got.failure != nil || names != test.want {
			t.Errorf("%s: %q, want %q; %v", test.line, names, test.want, got.failure)
		}
	}
}

func TestPolicyIsFoundByItsDistinguishedName(t *testing.T) {
	for dn, name := range map[string]string{
		"CN=USA_mailboxes" + under: "USA_mailboxes", "cn=a\\,b\\\\c" + strings.ToUpper(under): `a,b\c`, "CN=other,DC=com": "CN=other,DC=com", "USA_mailboxes": "USA_mailboxes", "CN=": "CN=",
	} {
		if got := policyName(dn); got != name {
			t.Errorf("%s: %s", dn, got)
		}
	}
	if got := policyDN(`a,b\c`); got != "CN=a\\,b\\\\c"+under {
		t.Error(got)
	}
	got := mustRun(t, "Set-Mailbox alice@contoso.com -DataEncryptionPolicy 'CN=USA_mailboxes"+under+"'", nil)
	if calls := strings.Join(got.calls, "; "); calls != `AssignMailbox alice@contoso.com "USA_mailboxes"` {
		t.Error(calls)
	}
}

package cmdlet

import (
	"strings"
	"testing"
)

func TestTabCompletesFromTheTable(t *testing.T) {
	for _, test := range []struct{ typed, want string }{
		{"Get-MailboxS", "Get-MailboxStatistics"},
		{"get-spos", "Get-SPOSite Get-SPOSiteDataEncryptionPolicy"},
		{"Add-AzureK", "Add-AzureKeyVaultKey"},
		{"", ""},
		{"Get-Mailbox | Set-Mailbox -Data", "-DataEncryptionPolicy"},
		{"$x = Get-Mailbox -", "-Identity -ResultSize"},
		{"Get-Mailbox | ? { $_.Name -eq 'a|b' } | Measure-Object -M", "-Maximum -Minimum"},
		{"Update-SPODataEncryptionPolicy -KeyType ", "Primary Secondary Availability"},
		{"Update-SPODataEncryptionPolicy -keyt s", "Secondary"},
		{"Set-AzKeyVaultAccessPolicy v -PermissionsToKeys wrapKey,unw", "unwrapKey"},
		{"New-DataEncryptionPolicy -Enabled $", "$true $false"},
		{"New-DataEncryptionPolicy -Name U", ""},
		{"Frobnicate-All -", ""},
		{"Get-Mailbox al", ""},
	} {
		from, candidates := complete(Table(), test.typed)
		if got := strings.Join(candidates, " "); got != test.want || from > len(test.typed) {
			t.Errorf("%q: %q at %d, want %q", test.typed, got, from, test.want)
		}
	}
}

func TestRepeatedTabShowsTheNextCompletion(t *testing.T) {
	c := &completer{table: Table()}
	line, pos := "get-spos | fl", len("get-spos")
	for _, want := range []string{"Get-SPOSite", "Get-SPOSiteDataEncryptionPolicy", "Get-SPOSite"} {
		var ok bool
		if line, pos, ok = c.key(line, pos, '\t'); !ok || line != want+" | fl" || pos != len(want) {
			t.Errorf("%q at %d, want %q", line, pos, want)
		}
	}
	if _, _, ok := c.key(line, pos, 'x'); ok {
		t.Error("a letter is not typed")
	}
	if got, at, ok := c.key("Nothing-Li", 10, '\t'); !ok || got != "Nothing-Li" || at != 10 {
		t.Errorf("a Tab without a completion: %q at %d, %v", got, at, ok)
	}
}

package cmdlet

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files and docs/cmdlets.md")

// golden compares got with a file, which -update writes.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test -update writes it", err)
	}
	if got != string(want) {
		t.Errorf("%s is stale; go test -update writes it again. Got:\n%s", path, got)
	}
}

func TestObjectsLookAsInPowerShell(t *testing.T) {
	var text, lines strings.Builder
	for _, line := range []string{
		"Get-Mailbox",
		"Get-MailboxStatistics -Identity alice@contoso.com",
		"Get-MailboxStatistics -Identity alice@contoso.com | fl DataEncryptionPolicyID, isencrypted, Missing",
		"Get-MailboxStatistics -Identity alice@contoso.com | ft DisplayName, ItemCount -AutoSize",
		"Get-Mailbox | fl *Polic*, Name",
		"Get-AzKeyVault; Get-AzKeyVaultKey Contoso-A Key001 -IncludeVersions",
		"Get-SPODataEncryptionPolicy",
		"Get-SPOSite | Get-SPOSiteDataEncryptionPolicy | ft",
		"Get-DataEncryptionPolicy USA_mailboxes | fl",
		"Get-DataEncryptionPolicy",
		"@(Get-Mailbox alice@contoso.com\nGet-Date\nGet-DataEncryptionPolicy)",
		"Get-Date '12/27/2016 12:01 AM'; 'text'; 12; 1.5; $true; $null; @()",
		"Get-Mailbox | select Name, State | ConvertTo-Json; Get-Mailbox alice@contoso.com | ConvertTo-Json -Compress",
		"Get-MailboxStatistics alice@contoso.com | Measure-Object ItemCount -Sum -Average",
		"Get-Help Set-DataEncryptionPolicy; Get-Command *-Mailbox",
	} {
		text.WriteString("PS> " + line + "\n" + mustRun(t, line, nil).out)
		lines.WriteString("PS> " + line + "\n" + mustRun(t, line, asJSON).out)
	}
	golden(t, "testdata/views.txt", text.String())
	golden(t, "testdata/views.json.txt", lines.String())
}

func TestTableFitsTheTerminal(t *testing.T) {
	got := mustRun(t, "Get-MailboxStatistics alice@contoso.com | ft DisplayName, DataEncryptionPolicyID, ItemCount", func(o *Options) { o.Width = 50 })
	want := "\n" +
		"DisplayName       DataEncryptionPolicyID ItemCount\n" +
		"-----------       ---------------------- ---------\n" +
		"alice@contoso.com 22222222-2222-2222-22…        12\n\n"
	if got.out != want {
		t.Errorf("got\n%swant\n%s", got.out, want)
	}
}

func TestLongTableKeepsItsColumns(t *testing.T) {
	r := newRecorder()
	for len(r.boxes) < 2*tableBlock+5 {
		r.boxes = append(r.boxes, r.boxes[0])
	}
	got := runWith(r, "Get-Mailbox; Get-Mailbox | ft Name", nil)
	if got.failure != nil {
		t.Fatal(got.failure)
	}
	if n := strings.Count(got.out, "----"); n < 2 || strings.Count(got.out, "\n\n") != 2 || strings.Count(got.out, "alice@contoso.com") != 2*(2*tableBlock+4) {
		t.Errorf("%d rules, %d empty lines, %d rows", n, strings.Count(got.out, "\n\n"), strings.Count(got.out, "alice@contoso.com"))
	}
}

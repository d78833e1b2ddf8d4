package syntax

import (
	"errors"
	"strings"
	"testing"
)

func TestParseReadsTheLanguage(t *testing.T) {
	tests := []struct{ text, tree string }{
		{"", ""},
		{"# a comment\n<# and\nanother #> ; ;\n", ""},
		{"Set-DataEncryptionPolicy USA_mailboxes -Refresh", `Set-DataEncryptionPolicy "USA_mailboxes" -Refresh`},
		{"Get-MailboxStatistics -Identity alice@contoso.com | fl DataEncryptionPolicyID, IsEncrypted",
			`Get-MailboxStatistics -Identity "alice@contoso.com" | fl "DataEncryptionPolicyID","IsEncrypted"`},
		{"Add-AzureKeyVaultKey -KeyOps @('wrapKey','unwrapKey') -NotBefore (Get-Date -Date \"12/27/2016 12:01 AM\")",
			`Add-AzureKeyVaultKey -KeyOps @("wrapKey","unwrapKey") -NotBefore (Get-Date -Date "12/27/2016 12:01 AM")`},
		{"New-DataEncryptionPolicy -Name a -AzureKeyIDs https://a.vault.azure.net/keys/k, https://b.vault.azure.net/keys/k",
			`New-DataEncryptionPolicy -Name "a" -AzureKeyIDs "https://a.vault.azure.net/keys/k","https://b.vault.azure.net/keys/k"`},
		{"Register-X -Keys a,\n  b `\n  -Confirm:$false", `Register-X -Keys "a","b" -Confirm:${false}`},
		{"Set-Mailbox alice -DataEncryptionPolicy $null;Get-Mailbox", "Set-Mailbox \"alice\" -DataEncryptionPolicy ${null}\nGet-Mailbox"},
		{"$a = Add-AzKeyVaultKey v k; Update-X -KeyVersion $a.Version", "${a} = Add-AzKeyVaultKey \"v\" \"k\"\nUpdate-X -KeyVersion ${a}.Version"},
		{"(Get-AzKeyVaultKey -VaultName v -Name k).Attributes.RecoveryLevel", `(Get-AzKeyVaultKey -VaultName "v" -Name "k").Attributes.RecoveryLevel`},
		{"Get-Mailbox |\n  # every one\n  ForEach-Object { Get-MailboxStatistics -Identity $_.Identity }",
			`Get-Mailbox | ForEach-Object { Get-MailboxStatistics -Identity ${_}.Identity }`},
		{"Get-Mailbox | ? { $_.Name -like 'a*' -and -not ($_.State -eq \"active\") -or !$_.X } | % { $_.Name }",
			`Get-Mailbox | ? { ${_}.Name -like "a*" -and ! (${_}.State -eq "active") -or ! ${_}.X } | % { ${_}.Name }`},
		{"$x = 1, 2.5, -3", "${x} = 1,2.5,-3"},
		{"Get-X 12 -4 -Size 2048 1.2.3", `Get-X 12 -4 -Size 2048 "1.2.3"`},
		{`"a $b.c ${d}e $ 1 ""q"" ` + "`$x`n" + `"`, "\"a ${b}.c ${d}e `$ 1 `\"q`\" `$x\n\""},
		{`'it''s $plain'`, "\"it's `$plain\""},
		{"Get-X https://$vault.vault.azure.net/keys/k", `Get-X "https://${vault}.vault.azure.net/keys/k"`},
		{"Add‑X", ""}, // U+2011 is no PowerShell dash
		{"Add–AzKeyVaultKey –VaultName “Contoso VaultA1” -Name\u00a0‘k’", `Add-AzKeyVaultKey -VaultName "Contoso VaultA1" -Name "k"`},
		{"@(\n  Get-A\n  Get-B\n) | fl *", "@(Get-A\nGet-B) | fl \"*\""},
		{"@()", "@()"},
		{"Get-Mailbox\n  | Where-Object { $_.State -eq 'active' }\n  | Select-Object Name\nGet-X", "Get-Mailbox | Where-Object { ${_}.State -eq \"active\" } | Select-Object \"Name\"\nGet-X"},
		{"Get-A -Name b # one\n\n# two\n<# three\n#>\r\n\t| fl *\n\n", `Get-A -Name "b" | fl "*"`},
		{"$a = Get-A\n| Sort-Object\n", "${a} = Get-A | Sort-Object"},
		{"(Get-A\n| Sort-Object\n).Count\n$x\n|fl", "(Get-A | Sort-Object).Count\n${x} | fl"},
		{"Get-A |\n| fl", ""},
		{"Get-A;\n| fl", ""},
		{"Get-A\n|| Get-B", ""},
		{"Get-A\n\n# a comment\nGet-B", "Get-A\nGet-B"},
		{"Get-X -A @() -B a`,b c#d # comment", `Get-X -A @() -B "a,b" "c#d"`},
		{"\ufeffGet-X\r\nGet-Y\r", "Get-X\nGet-Y"},
		{"$a =\n  Get-X", "${a} = Get-X"},
		{"Backup-X -Name k\n-OutputFile f \n  -Confirm:$false\nGet-Y", "Backup-X -Name \"k\" -OutputFile \"f\" -Confirm:${false}\nGet-Y"},
		{"Get-X a\n-not $b\n-5", "Get-X \"a\"\n! ${b}\n-5"},
		{"Get-X a\n\n-Name b", ""},
		{"('a','b' | Sort-Object).Count", `("a","b" | Sort-Object).Count`},
		{"$_.A -contains 'x'", `${_}.A -contains "x"`},
	}
	for _, test := range tests {
		s, err := Parse(test.text)
		if test.tree == "" && (strings.HasPrefix(test.text, "Add") || strings.HasPrefix(test.text, "Get")) {
			if err == nil {
				t.Errorf("%q: parsed", test.text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		if got := print(s); got != test.tree {
			t.Errorf("%q\n got %s\nwant %s", test.text, got, test.tree)
		}
	}
}

func TestErrorsNameThePositionAndWhatWasExpected(t *testing.T) {
	tests := []struct{ text, want string }{
		{"Get-X 'abc", "1:7: the string that begins here is not closed: expected '"},
		{"Get-X\nGet-Y -A \"abc\n", "2:10: the string that begins here is not closed: expected \""},
		{"Get-A | % { Get-B\nGet-C", "2:6: expected } to close the { at 1:11, found the end of the text"},
		{"(Get-A", "1:7: expected ) to close the ( at 1:1, found the end of the text"},
		{"Get-X @('a'", "1:12: expected ) to close the @( at 1:7, found the end of the text"},
		{"Get-X (Get-Y }", "1:14: expected ) to close the ( at 1:7, found }"},
		{"Get-X )", "1:7: expected | or the end of the statement, found )"},
		{") Get-X", "1:1: expected the name of a cmdlet or a value, found )"},
		{"<# open", "1:1: the comment that begins here is not closed: expected #>"},
		{"Get-X |", "1:8: expected the name of a cmdlet, found the end of the text"},
		{"Get-X | 'a'", "1:9: expected the name of a cmdlet, found 'a'"},
		{"| Get-X", "1:1: expected the name of a cmdlet or a value, found |"},
		{"Get-X -A a,", "1:12: expected a value, found the end of the text"},
		{"Get-X , a", "1:7: expected an argument before the comma, found ,"},
		{"Get-X -A a,,b", "1:12: expected a value, found ,"},
		{"Get-X -A: -B", "1:11: expected a value, found -B"},
		{"Get-X -VaultName <vault name>", "1:18: expected an argument, found <"},
		{"Get-X > file", "1:7: redirection is not part of the language: expected | or the end of the statement, found >"},
		{"Get-X && Get-Y", "1:7: && is not part of the language: expected | or the end of the statement"},
		{"Get-X 'a'b", `1:10: expected a space after 'a', found 'b'`},
		{"Get-X a'b'", `1:8: expected a space before the string that begins with '`},
		{"Get-X $a/b", `1:9: expected a space after $a, found '/'`},
		{"Get-X -A.b", `1:9: expected a space after -A, found '.'`},
		{"Get-X -", "1:7: expected the name of a parameter after -"},
		{"Get-X @{a=1}", "1:7: hash tables, here-strings and splatting are not part of the language: expected ( after @"},
		{"if ($a) { Get-X }", "1:1: if is not part of the language: expected the name of a cmdlet or an assignment"},
		{"foreach ($a in $b) {}", "1:1: foreach is not part of the language: expected the name of a cmdlet or an assignment"},
		{"$a.ToString()", "1:12: methods are not part of the language: expected the end of the property ToString"},
		{"$a[0]", "1:3: indexes are not part of the language: expected a property or the end of the value"},
		{"$a. b", "1:3: expected the name of a property after the dot"},
		{"$a -match 'x'", `1:4: expected one of -and -or -not -eq -ne -gt -ge -lt -le -like -notlike -contains -in, found "-match"`},
		{"$a -eq alice", `1:8: expected a value, found "alice"`},
		{"$a + 1", "1:4: expected a value, found '+'"},
		{"$a 1", "1:4: expected | or the end of the statement, found 1"},
		{"$true = 1", "1:1: expected a variable that can be set, found $true"},
		{"$env:X", "1:5: variables have no scope or drive: expected the end of $env, found :"},
		{`"$a:8443"`, "1:4: variables have no scope or drive: expected the end of $a, found :"},
		{`"$(Get-X)"`, "1:2: $( … ) is not part of the language: expected the name of a variable after $"},
		{"$(Get-X)", "1:1: $( … ) is not part of the language: expected ( … ) or the name of a variable after $"},
		{"()", "1:2: expected the name of a cmdlet or a value, found )"},
		{"Get-X { $_ -eq }", "1:16: expected a value, found }"},
		{"./script.ps1", "1:1: expected the name of a cmdlet or a value, found ."},
		{"Some.exe", "1:1: expected the name of a cmdlet, found Some.exe"},
		{"é\nÄÖ 'x", "2:4: the string that begins here is not closed: expected '"},
		{"Get-X \xff", "1:7: expected text in UTF-8, found the byte 0xff"},
		{"Get-X \x00", "1:7: expected text, found a NUL character"},
		{"\"`q\"", "1:2: expected `n, `r, `t or a sign after the backtick, found 'q'"},
		{strings.Repeat("(", 70), "1:65: expected at most 64 brackets inside each other"},
		{strings.Repeat("!", 70), "1:65: expected at most 64 brackets inside each other"},
		{"$a" + strings.Repeat(".a", 300), "1:515: expected at most 256 properties in a row"},
		{"99999999999999999999 -eq 1", `1:1: expected a number, found "99999999999999999999"`},
	}
	for _, test := range tests {
		_, err := Parse(test.text)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: no syntax error: %v", test.text, err)
			continue
		}
		if e.Error() != test.want {
			t.Errorf("%q\n got %s\nwant %s", test.text, e, test.want)
		}
	}
}

func TestUnfinishedTextIsIncompleteAndInvalidTextIsNot(t *testing.T) {
	for _, text := range []string{"Get-X |", "Get-X 'a", "(Get-X", "% { Get-X", "Get-X @(1,", "<# a", "Get-X `", "$a =", "$a -eq", "% {\n"} {
		if e := (*Error)(nil); !errors.As(parseError(text), &e) || !e.Incomplete {
			t.Errorf("%q is not incomplete: %v", text, e)
		}
	}
	for _, text := range []string{"Get-X )", "if", "$a.b()", "Get-X > a", "Get-X 'a'b"} {
		if e := (*Error)(nil); !errors.As(parseError(text), &e) || e.Incomplete {
			t.Errorf("%q is incomplete: %v", text, e)
		}
	}
}

func parseError(text string) error {
	_, err := Parse(text)
	return err
}

func TestNodesHaveTheirPosition(t *testing.T) {
	s, err := Parse("Get-A\n  Get-B -Name 'é', $x.Version |\n fl")
	if err != nil {
		t.Fatal(err)
	}
	pl := s.Statements[1].(*Pipeline)
	c := pl.Elements[0].(*Command)
	list := c.Arguments[1].Value.(*List)
	for _, test := range []struct {
		got  Position
		want string
	}{
		{pl.Pos(), "2:3"}, {c.Pos(), "2:3"}, {c.Arguments[0].Pos(), "2:9"}, {list.Items[0].Pos(), "2:15"},
		{list.Items[1].Pos(), "2:20"}, {list.Items[1].(*Member).Of.Pos(), "2:20"}, {pl.Elements[1].Pos(), "3:2"},
	} {
		if test.got.String() != test.want {
			t.Errorf("at %s, want %s", test.got, test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"Set-DataEncryptionPolicy USA_mailboxes -Refresh", "Get-X @('a','b') (Get-Date -Date \"12/27/2016 12:01 AM\") | fl A, B",
		"$a = Get-X; $a.B -eq 'c' -and !$d # x", "Get-X | % { $_.A } <# b #>", "\"${a}`$ $b\" ; 'it''s'", "@(1, -2.5\nGet-X -A:$false `\n b)",
		"Get-X “a” –B", "(", "$", "@", "`", "{ }", "1 -eq 2", "a:b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Message == "" {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		printed := print(s)
		again, err := Parse(printed)
		if err != nil {
			t.Fatalf("%q printed as %q: %v", text, printed, err)
		}
		if got := print(again); got != printed {
			t.Fatalf("%q printed as %q, then as %q", text, printed, got)
		}
	})
}

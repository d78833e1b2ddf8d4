package cmdlet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
)

// runShell runs the interactive shell on lines and returns prompts, output and errors.
func runShell(t *testing.T, r *recorder, lines ...string) (prompts []string, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	err := loop(context.Background(), r.options(&o, &e), func(prompt string) (string, error) {
		prompts = append(prompts, prompt)
		if len(lines) == 0 {
			return "", io.EOF
		}
		line := lines[0]
		lines = lines[1:]
		return line, nil
	})
	if err != nil {
		t.Error(err)
	}
	return prompts, o.String(), e.String()
}

func TestShellReadsUntilAStatementIsWhole(t *testing.T) {
	r := newRecorder()
	prompts, out, errOut := runShell(t, r,
		"$all = Get-Mailbox |", "  ? { $_.Name -like 'a*' }", "$all.Name", "", "Get-Mailbox unknown", "Get-Mailbox 'open", "", "Get-Dat", "(1,2).Count", "exit", "New-Mailbox never")
	want := "PS keyroll> |>> |PS keyroll> |PS keyroll> |PS keyroll> |PS keyroll> |>> |PS keyroll> |PS keyroll> |PS keyroll> "
	if strings.Join(prompts, "|") != want {
		t.Errorf("prompts %q", prompts)
	}
	if out != "alice@contoso.com\n2\n" {
		t.Errorf("out %q", out)
	}
	wantErr := "Get-Mailbox: 1:1: mailbox \"unknown\" does not exist\nhint: keyroll mailbox list shows them\n" +
		"ParserError: 1:13: the string that begins here is not closed: expected '\n" +
		"Get-Dat: 1:1: is not a cmdlet\nhint: did you mean Get-Date?\n"
	if errOut != wantErr {
		t.Errorf("err %q", errOut)
	}
}

func TestShellEndsWhenTheTerminalCloses(t *testing.T) {
	if _, _, errOut := runShell(t, newRecorder()); errOut != "\n" {
		t.Errorf("err %q", errOut)
	}
}

func TestRemovalAsksForConfirmation(t *testing.T) {
	const remove = "Remove-AzKeyVaultKey Contoso-A Key001"
	const question = "Delete key Key001 with all its versions from vault Contoso-A?"
	for _, test := range []struct{ answer, calls string }{
		{"y", "RemoveKey Contoso-A Key001"}, {"YES", "RemoveKey Contoso-A Key001"}, {"n", ""}, {"", ""},
	} {
		r := newRecorder()
		prompts, _, errOut := runShell(t, r, remove, test.answer)
		if len(prompts) < 2 || prompts[1] != question+" [y/N] " {
			t.Errorf("prompts %q", prompts)
		}
		if strings.Join(r.changes(), "; ") != test.calls {
			t.Errorf("%q: calls %v", test.answer, r.calls)
		}
		if refused := strings.Contains(errOut, "was not confirmed; nothing was changed"); refused != (test.calls == "") {
			t.Errorf("%q: %q", test.answer, errOut)
		}
	}
	for _, line := range []string{remove, "Remove-AzKeyVaultAccessPolicy Contoso-A -ObjectId " + guid1, "New-Mailbox a -Confirm",
		"Set-DataEncryptionPolicy USA_mailboxes -PermanentDataPurgeRequested -PermanentDataPurgeReason exit -PermanentDataPurgeContact Ann"} {
		r := newRecorder()
		got := runWith(r, line, nil)
		if fail.CodeOf(got.failure) != api.InvalidArgument || !strings.Contains(got.failure.Error(), "is not a terminal") || len(r.changes()) > 0 {
			t.Errorf("%s: %v, %v", line, got.failure, r.calls)
		}
		r = newRecorder()
		if got = runWith(r, strings.TrimSuffix(line, " -Confirm")+" -Confirm:$false", nil); got.failure != nil || len(r.changes()) != 1 {
			t.Errorf("%s: %v, %v", line, got.failure, r.calls)
		}
	}
}

func TestKeyBackupIsWrittenToANewPrivateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Key001.backup")
	got := mustRun(t, "Backup-AzKeyVaultKey Contoso-A Key001 -OutputFile '"+path+"'", nil)
	raw, err := os.ReadFile(path)
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || string(raw) != "sealed" || info.Mode().Perm() != 0o600 || got.out != path+"\n" {
		t.Errorf("%q, %v, %v, %q", raw, err, statErr, got.out)
	}
	r := newRecorder()
	r.fail = map[string]error{"BackupKey": fail.New(api.Forbidden, "may not")}
	failed := path + "2"
	if got := refusal(t, r, "Backup-AzKeyVaultKey Contoso-A Key001 '"+failed+"'"); got != "Backup-AzKeyVaultKey: 1:1: may not" {
		t.Error(got)
	}
	if _, err := os.Stat(failed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed backup leaves a file: %v", err)
	}
}

func TestRunStopsWhenItsContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errOut bytes.Buffer
	r := newRecorder()
	for _, text := range []string{"Get-Mailbox", "1,2,3 | % { $_ }"} {
		if err := Run(ctx, text, r.options(&out, &errOut)); !errors.Is(err, context.Canceled) || out.Len() > 0 {
			t.Errorf("%s: %v, %q", text, err, out.String())
		}
	}
}

func TestStandardInputIsParsedAsOneScript(t *testing.T) {
	path := filepath.Join(t.TempDir(), "script.ps1")
	if err := os.WriteFile(path, []byte("New-Mailbox a;\n(Get-Mailbox).Count\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out, errOut bytes.Buffer
	o := newRecorder().options(&out, &errOut)
	o.JSON = true
	if err := Interact(context.Background(), f, o); err != nil || !strings.HasSuffix(out.String(), "\n2\n") {
		t.Errorf("%v, %q", err, out.String())
	}
}

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"keyroll/internal/connect"
	"keyroll/internal/longtest"
)

// runningServer is a running server that a test uses through the command line.
type runningServer struct {
	t    *testing.T
	data string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

// serve starts a server on a data folder and stops it at the test's end.
func serve(t *testing.T, data string, flags ...string) *runningServer {
	t.Helper()
	h := &runningServer{t: t, data: data}
	h.cmd = exec.Command("keyroll", append([]string{"serve", "--data", data, "--listen", "127.0.0.1:0"}, flags...)...)
	h.cmd.Stderr = &h.log
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.stop)
	if err := waitReady(data); err != nil {
		t.Fatal(err)
	}
	return h
}

// stop sends SIGTERM and wants exit status 0.
func (h *runningServer) stop() {
	h.t.Helper()
	if h.cmd == nil {
		return
	}
	cmd := h.cmd
	h.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		h.t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		h.t.Errorf("serve: %v\n%s", err, &h.log)
	}
}

// outcome is the result of one command line.
type outcome struct {
	status      int
	out, errOut string
}

// run runs keyroll against the server.
func (h *runningServer) run(stdin string, args ...string) outcome {
	h.t.Helper()
	var out, errOut bytes.Buffer
	ctx, cancel := context.WithTimeout(h.t.Context(), pollFor) // what should be refused may serve instead
	defer cancel()
	cmd := exec.CommandContext(ctx, "keyroll", args...)
	cmd.Env = append(os.Environ(), "KEYROLL_DATA="+h.data)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		h.t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// runHere runs keyroll in this process, which spares the start of one.
func (h *runningServer) runHere(args ...string) outcome {
	h.t.Helper()
	h.t.Setenv("KEYROLL_DATA", h.data)
	in, err := os.Open(os.DevNull)
	if err != nil {
		h.t.Fatal(err)
	}
	defer in.Close()
	ctx, cancel := context.WithTimeout(h.t.Context(), pollFor)
	defer cancel()
	var out, errOut bytes.Buffer
	status := run(ctx, args, in, &out, &errOut)
	return outcome{status, out.String(), errOut.String()}
}

// must runs a command line that has to succeed and returns its standard output.
func (h *runningServer) must(args ...string) string {
	h.t.Helper()
	o := h.run("", args...)
	if o.status != 0 {
		h.t.Fatalf("keyroll %s: exit status %d\n%s", strings.Join(args, " "), o.status, o.errOut)
	}
	return o.out
}

// textOf returns a member of the one JSON object that a command line prints.
func (h *runningServer) textOf(member string, args ...string) string {
	h.t.Helper()
	objects, err := parseLines(h.must(append(args, "-o", "json")...))
	if err != nil || len(objects) != 1 {
		h.t.Fatalf("keyroll %s: %d JSON objects, %v", strings.Join(args, " "), len(objects), err)
	}
	return fmt.Sprint(jsonMember(objects[0], member))
}

// snapshot is everything that a refused command could have changed. It is read so
// often that the commands run in this process.
func (h *runningServer) snapshot() map[string]string {
	h.t.Helper()
	all := map[string]string{}
	ask := func(args ...string) string {
		h.t.Helper()
		o := h.runHere(args...)
		if o.status != 0 {
			h.t.Fatalf("keyroll %s: exit status %d\n%s", strings.Join(args, " "), o.status, o.errOut)
		}
		return o.out
	}
	for _, args := range [][]string{
		{"policy", "list"}, {"mailbox", "list"}, {"site", "list"}, {"key", "usage"}, {"roll", "list"}, {"site", "ls", legal},
	} {
		all[strings.Join(args, " ")] = ask(append(args, "-o", "json")...)
	}
	all["vaults"] = ask("shell", "-o", "json", "-c", "Get-AzKeyVault | ForEach-Object { $_; Get-AzKeyVaultKey -VaultName $_.VaultName }")
	all["mail"] = ask("mailbox", "export", "alice@contoso.com")
	all["file"] = ask("site", "get", legal, "a.txt")
	return all
}

const (
	legal  = "https://contoso.sharepoint.com/sites/legal"
	oneBox = "From alice@contoso.com Thu Jan  1 00:00:00 2026\nSubject: one\n\nbody\n"
	// policyOf begins the command that creates a policy from two keys; it has to be refused.
	policyOf = "New-DataEncryptionPolicy -Name Refused -AzureKeyIDs "
	good     = "https://va1.vault.localhost/keys/key"
)

// stage creates the state that the refused commands run against.
const stage = `
New-AzKeyVault -VaultName va1 -ResourceGroupName rg -Location westus -EnablePurgeProtection
New-AzKeyVault -VaultName va2 -ResourceGroupName rg -Location eastus -EnablePurgeProtection
New-AzKeyVault -VaultName shut -ResourceGroupName rg -Location eastus -EnablePurgeProtection
New-AzKeyVault -VaultName vs1 -ResourceGroupName rg -Location westus -EnablePurgeProtection
New-AzKeyVault -VaultName vs2 -ResourceGroupName rg -Location eastus -EnablePurgeProtection
Set-AzKeyVaultAccessPolicy -VaultName va1 -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000
Set-AzKeyVaultAccessPolicy -VaultName va2 -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000
Set-AzKeyVaultAccessPolicy -VaultName shut -PermissionsToKeys unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000
Set-AzKeyVaultAccessPolicy -VaultName vs1 -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000003-0000-0ff1-ce00-000000000000
Set-AzKeyVaultAccessPolicy -VaultName vs2 -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000003-0000-0ff1-ce00-000000000000
Add-AzKeyVaultKey -VaultName va1 -Name key -Destination Software
Add-AzKeyVaultKey -VaultName va2 -Name key -Destination Software
Add-AzKeyVaultKey -VaultName shut -Name key -Destination Software
Add-AzKeyVaultKey -VaultName va2 -Name ec -KeyType EC -Destination Software
Add-AzKeyVaultKey -VaultName va2 -Name off -Destination Software -Disable
Add-AzKeyVaultKey -VaultName va2 -Name expired -Destination Software -KeyOps wrapKey,unwrapKey
Update-AzKeyVaultKey -VaultName va2 -Name expired -Expires 1/1/2020
Add-AzKeyVaultKey -VaultName va2 -Name future -Destination Software -NotBefore 1/1/2999
Add-AzKeyVaultKey -VaultName va2 -Name wraponly -Destination Software -KeyOps wrapKey
New-DataEncryptionPolicy -Name USA_mailboxes -AzureKeyIDs https://va1.vault.localhost/keys/key, https://va2.vault.localhost/keys/key
New-Mailbox -Name alice@contoso.com
Set-Mailbox alice@contoso.com -DataEncryptionPolicy USA_mailboxes
$p = Add-AzKeyVaultKey -VaultName vs1 -Name key -Destination Software
$s = Add-AzKeyVaultKey -VaultName vs2 -Name key -Destination Software
Register-SPODataEncryptionPolicy -PrimaryKeyVaultName vs1 -PrimaryKeyName key -PrimaryKeyVersion $p.Version -SecondaryKeyVaultName vs2 -SecondaryKeyName key -SecondaryKeyVersion $s.Version
New-SPOSite -Url https://contoso.sharepoint.com/sites/legal
New-SPOSite -Url https://contoso.sharepoint.com/sites/b
New-SPOSite -Url https://contoso.sharepoint.com/sites/c
`

// TestBadInputIsRefusedAndChangesNothing runs one bad command line after the
// other against one server. Each is refused with its exit status (2 where the
// line itself is wrong, 1 where the service refuses), says on standard error
// what is wrong and nothing on standard output, and changes nothing.
// A vault whose challenge is malformed cannot be reached from here, since only
// Azure's domains and keyroll's own are dialled: the rootkey package's
// TestAMalformedChallengeIsLoggedAndAffectsNoLaterCall covers that.
func TestBadInputIsRefusedAndChangesNothing(t *testing.T) {
	h := serve(t, filepath.Join(t.TempDir(), "data"), "--page-slots", "1", "--roll-rate", "1")
	h.must("shell", "-c", stage)
	if o := h.run(oneBox, "mailbox", "import", "alice@contoso.com", "-"); o.status != 0 {
		t.Fatal(o.errOut)
	}
	if o := h.run("content", "site", "put", legal, "-", "a.txt"); o.status != 0 {
		t.Fatal(o.errOut)
	}
	siteURI := h.textOf("primary.uri", "policy", "show", "Sites")
	folder := t.TempDir()
	notMail := filepath.Join(folder, "not.mbox")
	if err := os.WriteFile(notMail, []byte("Subject: no From line\n\nbody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := h.snapshot()
	asked := 0
	unchanged := func(t *testing.T) {
		t.Helper()
		after := h.snapshot()
		for what := range before {
			if after[what] != before[what] {
				t.Errorf("%s changed from\n%s\nto\n%s", what, before[what], after[what])
			}
		}
		before = after
	}
	refused := func(name, stdin string, args []string, status int, says ...string) {
		t.Run(name, func(t *testing.T) {
			var o outcome
			if stdin == "" {
				o = h.runHere(args...)
			} else {
				o = h.run(stdin, args...)
			}
			if o.status != status {
				t.Errorf("exit status %d, want %d", o.status, status)
			}
			if o.out != "" {
				t.Errorf("standard output: %s", o.out)
			}
			for _, want := range says {
				if !strings.Contains(o.errOut, want) {
					t.Errorf("standard error does not say %q:\n%s", want, o.errOut)
				}
			}
			if testing.Verbose() {
				t.Logf("keyroll %q\n%s", args, o.errOut)
			}
			// In make test the inventory is compared once for several commands; make
			// test-long compares it after each.
			if asked++; asked%longtest.Of(16, 1) == 0 {
				unchanged(t)
			}
		})
	}
	shell := func(line string) []string { return []string{"shell", "-c", line} }
	cmd := func(args ...string) []string { return args }

	for _, row := range []struct {
		name   string
		args   []string
		status int
		says   []string
	}{
		// Things that do not exist.
		{"unknown vault", shell("Add-AzKeyVaultKey -VaultName nowhere -Name key -Destination Software"), 1,
			[]string{`Add-AzKeyVaultKey: 1:1: `, `vault "nowhere" does not exist`}},
		{"unknown vault in a policy", shell(policyOf + good + ", https://nowhere.vault.localhost/keys/key"), 1,
			[]string{`vault "nowhere" does not exist`, "hint: check the vault's name"}},
		{"unknown key", shell("Get-AzKeyVaultKey -VaultName va1 -Name nokey"), 1,
			[]string{`key "nokey" does not exist in vault "va1"`}},
		{"unknown key in a policy", shell(policyOf + good + ", https://va2.vault.localhost/keys/nokey"), 1,
			[]string{`key "nokey" does not exist in vault "va2"`, "hint: list the existing keys: Get-AzKeyVaultKey -VaultName va2"}},
		{"unknown version", cmd("policy", "update", "Sites", "--key-type", "primary", "--key", "https://vs1.vault.localhost/keys/key/0123456789abcdef0123456789abcdef"), 1,
			[]string{`key "key" version 0123456789abcdef0123456789abcdef in vault "vs1"`, "does not exist"}},
		{"unknown policy", cmd("policy", "refresh", "nowhere"), 1,
			[]string{`policy "nowhere" does not exist [NotFound]`, "hint: Get-DataEncryptionPolicy lists the policies"}},
		{"unknown policy of a mailbox", cmd("mailbox", "create", "new@contoso.com", "--policy", "nowhere"), 1,
			[]string{`policy "nowhere" does not exist [NotFound]`}},
		{"unknown policy to verify", cmd("verify", "--policy", "nowhere"), 1, []string{`policy "nowhere" does not exist [NotFound]`}},
		{"unknown mailbox", cmd("mailbox", "show", "unknown@contoso.com"), 1,
			[]string{`mailbox "unknown@contoso.com" does not exist [NotFound]`, "hint: keyroll mailbox list"}},
		{"unknown mailbox in a cmdlet", shell("Set-Mailbox unknown@contoso.com -DataEncryptionPolicy USA_mailboxes"), 1,
			[]string{`Set-Mailbox: 1:1: mailbox "unknown@contoso.com" does not exist`}},
		{"unknown site", cmd("site", "ls", "https://contoso.sharepoint.com/sites/nowhere"), 1,
			[]string{`site "https://contoso.sharepoint.com/sites/nowhere" does not exist [NotFound]`, "hint: keyroll site list"}},
		{"unknown file", cmd("site", "get", legal, "nowhere.txt"), 1, []string{`file "nowhere.txt" does not exist [NotFound]`}},
		{"unknown roll", cmd("roll", "pause", "123"), 1, []string{"roll 123 does not exist [NotFound]", "hint: keyroll roll list"}},
		{"roll that is no id", cmd("roll", "watch", "newest"), 2, []string{`roll "newest": a roll id must be a number`}},
		{"unknown key in the ledger", cmd("key", "usage", "--vault", "va1", "--key", "kye"), 1, []string{"no policy uses or has ever used such a key version [NotFound]"}},

		// Keys that cannot be customer keys.
		{"the same key twice", shell(policyOf + good + ", " + good), 2, []string{`both keys are in vault "va1"`, "two vaults"}},
		{"two keys in one vault", shell(policyOf + "https://va2.vault.localhost/keys/key, https://VA2.vault.localhost/keys/off"), 2, []string{"both keys are in vault", "two vaults"}},
		{"one key", shell(policyOf + good), 2, []string{"exactly two"}},
		{"EC key", shell(policyOf + good + ", https://va2.vault.localhost/keys/ec"), 1, []string{`key "ec"`, `in vault "va2" is of type EC`, "a customer key is an RSA key"}},
		{"disabled version", shell(policyOf + good + ", https://va2.vault.localhost/keys/off"), 1,
			[]string{`key "off"`, `in vault "va2"`, "disabled", "hint: Update-AzKeyVaultKey -VaultName va2 -Name off"}},
		{"expired version", shell(policyOf + good + ", https://va2.vault.localhost/keys/expired"), 1, []string{`key "expired"`, `in vault "va2"`, "expired"}},
		{"version that is not yet valid", shell(policyOf + good + ", https://va2.vault.localhost/keys/future"), 1, []string{`key "future"`, `in vault "va2" is not valid before 2999-01-01`}},
		{"key that does not unwrap", shell(policyOf + good + ", https://va2.vault.localhost/keys/wraponly"), 1, []string{`key "wraponly"`, "unwrapKey"}},
		{"missing permission", shell(policyOf + good + ", https://shut.vault.localhost/keys/key"), 1,
			[]string{`in vault "shut" is used by service principal 00000002-0000-0ff1-ce00-000000000000, which lacks: wrapKey`,
				"hint: Set-AzKeyVaultAccessPolicy -VaultName shut -PermissionsToKeys wrapKey,unwrapKey,get"}},
		{"URI that is no vault", shell(policyOf + good + ", https://example.com/keys/key"), 2,
			[]string{`"https://example.com/keys/key" is not the URI of a key in a vault`, "hint: write https://NAME.vault.localhost/keys/KEY"}},
		{"URI without TLS", shell(policyOf + good + ", http://va2.vault.localhost/keys/key"), 2, []string{"is not the URI of a key in a vault"}},
		{"URI of a secret", shell(policyOf + good + ", https://va2.vault.localhost/secrets/key"), 2, []string{"is not the URI of a key in a vault"}},
		{"URI under a domain that only begins like ours", shell(policyOf + good + ", https://va2.vault.localhost.example.com/keys/key"), 2, []string{"is not the URI of a key in a vault"}},

		// Changes that the rules do not allow.
		{"refresh with no new version", cmd("policy", "refresh", "USA_mailboxes"), 1,
			[]string{`policy "USA_mailboxes" already uses https://va1.vault.localhost`, "nothing was changed [NoNewVersion]", "hint: add a version first"}},
		{"refresh with no new version, as cmdlet", shell("Set-DataEncryptionPolicy USA_mailboxes -Refresh"), 1,
			[]string{`Set-DataEncryptionPolicy: 1:1: policy "USA_mailboxes" already uses`, "nothing was changed"}},
		{"refresh at depth root with no new version", cmd("policy", "refresh", "USA_mailboxes", "--depth", "root", "--all-generations"), 1, []string{"[NoNewVersion]"}},
		{"update with the version that is there", cmd("policy", "update", "Sites", "--key-type", "primary", "--key", siteURI), 1, []string{"nothing was changed [NoNewVersion]"}},
		{"refresh of a policy of exact versions", cmd("policy", "refresh", "Sites"), 2, []string{"hint: update one key at a time"}},
		{"update of a policy without versions", cmd("policy", "update", "USA_mailboxes", "--key-type", "primary", "--key", siteURI), 2, []string{"hint: refresh it"}},
		{"refresh of what has no customer keys", cmd("policy", "refresh", "Service-managed"), 2, []string{"has no customer keys"}},
		{"all generations of a deeper roll", cmd("policy", "refresh", "USA_mailboxes", "--all-generations"), 2, []string{"only at depth root"}},
		{"a policy twice", shell("New-DataEncryptionPolicy -Name USA_mailboxes -AzureKeyIDs " + good + ", https://va2.vault.localhost/keys/key"), 1, []string{`policy "USA_mailboxes" already exists`}},
		{"a mailbox twice", cmd("mailbox", "create", "ALICE@contoso.com"), 1, []string{`"ALICE@contoso.com" exists [AlreadyExists]`}},
		{"a site twice", cmd("site", "create", legal+"/"), 1, []string{"exists [AlreadyExists]"}},
		{"a vault twice", shell("New-AzKeyVault -VaultName VA1 -ResourceGroupName rg -Location westus"), 1, []string{"1:1: "}},
		{"a removal without a confirmation", shell("Remove-AzKeyVaultAccessPolicy -VaultName va1 -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000"), 2,
			[]string{"needs a confirmation", "-Confirm:$false", "nothing was changed"}},

		// Content.
		{"mbox that is none", cmd("mailbox", "import", "alice@contoso.com", notMail), 2, []string{`this is not an mbox: its first line begins with "Subject: no From line`}},
		{"mail for an unknown mailbox", cmd("mailbox", "import", "unknown@contoso.com", notMail), 1, []string{`mailbox "unknown@contoso.com" does not exist`}},
		{"mail that is not there", cmd("mailbox", "import", "alice@contoso.com", filepath.Join(folder, "none.mbox")), 2, []string{"the file cannot be read: ", "none.mbox"}},
		{"folder in place of a file", cmd("site", "put", legal, folder, "b.txt"), 2, []string{"is a folder, not a file"}},
		{"range that is none", cmd("site", "get", legal, "a.txt", "--offset", "1", "--length=-5"), 2, []string{"are not a valid range"}},
		{"range beyond the end", cmd("site", "get", legal, "a.txt", "--offset", "7"), 1, []string{"is outside the 7 bytes of the file [RangeNotSatisfiable]"}},
		{"path with ..", cmd("site", "put", legal, notMail, "../b.txt"), 2, []string{`"../b.txt" is not a valid file path`}},
		{"path with .. within", cmd("site", "get", legal, "x/../a.txt"), 2, []string{`is not a valid file path`}},
		{"absolute path", cmd("site", "put", legal, notMail, "/b.txt"), 2, []string{`"/b.txt" is not a valid file path`}},
		{"path with a control character", cmd("site", "put", legal, notMail, "b\x1b[2J.txt"), 2, []string{`"b\x1b[2J.txt" is not a valid file path`}},
		{"mailbox with a control character", cmd("mailbox", "create", "a\nb@contoso.com"), 2, []string{`mailbox "a\nb@contoso.com"`, "control character"}},
		{"mailbox without a name", cmd("mailbox", "create", ""), 2, []string{"[InvalidArgument]"}},
		{"site with a control character", cmd("site", "create", "https://contoso.sharepoint.com/a\x07b"), 2, []string{"control character"}},
		{"site without TLS", cmd("site", "create", "http://contoso.sharepoint.com/x"), 2, []string{"does not begin with https://"}},
		{"policy with a control character", shell("New-DataEncryptionPolicy -Name \"a\tb\" -AzureKeyIDs " + good + ", https://va2.vault.localhost/keys/key"), 2, []string{"control character"}},

		// The cmdlet language.
		{"unknown cmdlet", shell("Get-Mailbox\nGet-Mailboxes"), 2, []string{"Get-Mailboxes: 2:1: ", "hint: did you mean Get-Mailbox?"}},
		{"mistyped parameter", shell("New-Mailbox -Name new@contoso.com\nSet-Mailbox alice@contoso.com -DataEncryptonPolicy USA_mailboxes"), 2,
			[]string{"Set-Mailbox: 2:31: ", "-DataEncryptonPolicy", "hint: did you mean -DataEncryptionPolicy?"}},
		{"unclosed string", shell("New-Mailbox -Name 'new@contoso.com\n"), 2, []string{"1:19: ", "not closed", "expected '"}},
		{"missing parameter", shell("New-AzKeyVault -VaultName new"), 2, []string{"1:1: ", "-ResourceGroupName"}},
		{"what is no language", shell("New-Mailbox -Name new@contoso.com; rm -rf / && echo"), 2, []string{"1:"}},
		{"wrong value", shell("Set-Mailbox alice@contoso.com -DataEncryptionPolicy USA_mailboxes; New-AzKeyVault -VaultName n -ResourceGroupName rg -Location x -Sku Gold"), 2, []string{"Gold", "Premium"}},
		{"text and file", cmd("shell", "-c", "New-Mailbox -Name new@contoso.com", notMail), 2, []string{"-c and a file are both given"}},
		{"script that is not there", cmd("shell", filepath.Join(folder, "none.ps1")), 2, []string{"the script cannot be read: ", "none.ps1"}},

		// The command line.
		{"no command", cmd(), 2, []string{`expected one of "serve", `, "hint: keyroll --help"}},
		{"unknown command", cmd("mailboxes", "list"), 2, []string{"mailboxes"}},
		{"mistyped command", cmd("mailbox", "lsit"), 2, []string{`did you mean "list"?`}},
		{"unknown flag", cmd("policy", "refresh", "USA_mailboxes", "--dept", "root"), 2, []string{`unknown flag --dept, did you mean "--depth"?`}},
		{"missing argument", cmd("mailbox", "import", "alice@contoso.com"), 2, []string{"<file>"}},
		{"bad state", cmd("mailbox", "state", "alice@contoso.com", "gone"), 2, []string{`must be one of "active","inactive","disconnected","disabled"`}},
		{"bad depth", cmd("policy", "refresh", "USA_mailboxes", "--depth", "blob"), 2, []string{`--depth must be one of "root","policy","container","content"`}},
		{"bad key type", cmd("policy", "update", "Sites", "--key-type", "third", "--key", siteURI), 2, []string{`--key-type must be one of "primary","secondary"`}},
		{"bad output", cmd("mailbox", "list", "-o", "xml"), 2, []string{`--output must be one of "text","json"`}},
		{"no server", cmd("mailbox", "list", "--data", folder), 1, []string{"no running server uses data folder " + folder, "hint: start one with keyroll serve"}},
		{"server without a token", cmd("mailbox", "list", "--server", "https://127.0.0.1:1"), 2, []string{"--server needs a token", "hint: "}},
		{"server that is no URL", cmd("mailbox", "list", "--server", "http://127.0.0.1:1", "--token-file", filepath.Join(h.data, "admin.token")), 2, []string{"is not of the form https://HOST:PORT"}},
		{"server that is not there", cmd("mailbox", "list", "--server", "https://127.0.0.1:1", "--token-file", filepath.Join(h.data, "admin.token")), 1, []string{"https://127.0.0.1:1 cannot be reached"}},
		{"token that is none", cmd("mailbox", "list", "--server", h.url(), "--ca-file", filepath.Join(h.data, "ca.pem"), "--token-file", invalidTokenFile(t)), 1, []string{"[Unauthenticated]"}},
		{"server with an untrusted certificate", cmd("mailbox", "list", "--server", h.url(), "--token-file", filepath.Join(h.data, "admin.token")), 1, []string{"a certificate that is not trusted", "hint: "}},
		{"verify of no folder", cmd("verify", "--data", filepath.Join(folder, "none")), 2, []string{"does not exist"}},
		{"verify of another folder", cmd("verify", "--data", folder), 2, []string{"is not a data folder"}},
		{"demo in a folder that holds something", cmd("demo", "--data", folder, "--files", "testdata"), 1, []string{"is not empty [AlreadyExists]"}},
		{"bench of nothing", cmd("bench", "roll", "--containers", "0", "--data", onDisk(t)), 2, []string{"0 containers cannot be rolled"}},
		{"bench with pages of nothing", cmd("bench", "roll", "--page-slots", "0"), 2, []string{"--page-slots: 0 is not within 1 to 1024"}},
		{"folder in use", cmd("serve", "--data", h.data, "--listen", "127.0.0.1:0"), 1, []string{"is in use by another process [FolderInUse]", "hint: stop that server"}},
	} {
		refused(row.name, "", row.args, row.status, row.says...)
	}
	refused("mbox from standard input that is none", "no mail\n", cmd("mailbox", "import", "alice@contoso.com", "-"), 2, `this is not an mbox: its first line begins with "no mail"`)
	refused("script from standard input that is none", "Get-Mailbox (", cmd("shell"), 2, "1:14: ")

	unchanged(t)

	// A site policy rolls one key at a time.
	first := h.textOf("Id", "shell", "-c", "Add-AzKeyVaultKey -VaultName vs1 -Name key -Destination Software")
	second := h.textOf("Id", "shell", "-c", "Add-AzKeyVaultKey -VaultName vs2 -Name key -Destination Software")
	id := h.textOf("policy.roll.id", "policy", "update", "Sites", "--key-type", "primary", "--key", first)
	h.must("roll", "pause", id)
	before = h.snapshot()
	refused("second roll of the sites", "", cmd("policy", "update", "Sites", "--key-type", "secondary", "--key", second), 1,
		`policy "Sites" is being rolled: `, " of 3 containers (", "the roll is paused [RollInProgress]", "keyroll roll watch "+id)
	unchanged(t)
}

// TestTruncatedTransfersStoreNothing sends less than the stated length.
func TestTruncatedTransfersStoreNothing(t *testing.T) {
	h := serve(t, filepath.Join(t.TempDir(), "data"))
	h.must("mailbox", "create", "alice@contoso.com")
	h.must("site", "create", legal)
	h.run(oneBox, "mailbox", "import", "alice@contoso.com", "-")
	h.run("content", "site", "put", legal, "-", "a.txt")
	before := h.snapshot()
	for _, row := range []struct{ name, method, path, body string }{
		{"mail", "POST", "/v1/mailboxes/alice@contoso.com/mbox", oneBox + "\n" + oneBox},
		{"new file", "PUT", "/v1/site/file?path=b.txt&site=" + url.QueryEscape(legal), "half of"},
		{"file in place of another", "PUT", "/v1/site/file?path=a.txt&site=" + url.QueryEscape(legal), "half of"},
	} {
		t.Run(row.name, func(t *testing.T) {
			answer := h.sendTruncated(row.method, row.path, row.body, int64(len(row.body))+1000)
			if !strings.Contains(answer, `"code":"Truncated"`) {
				t.Errorf("answer: %s", answer)
			}
			if after := h.snapshot(); !maps.Equal(before, after) {
				t.Errorf("changed from %v to %v", before, after)
			}
		})
	}
	if got := h.must("verify", "-o", "json"); !strings.Contains(got, `"damaged":[]`) {
		t.Error(got)
	}
}

// TestServeRefusesUnsuitableDataFoldersAndFlags starts serve on data folders that it
// must not change, and with flags that contradict each other.
func TestServeRefusesUnsuitableDataFoldersAndFlags(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	h := serve(t, data, "--vault-domain", "vault.contoso.net")
	h.must("mailbox", "create", "alice@contoso.com")
	h.stop()
	seal, err := os.ReadFile(filepath.Join(data, "seal"))
	if err != nil {
		t.Fatal(err)
	}
	database := filepath.Join(data, "keyroll.db")
	change := func(statement string) func() error {
		return func() error { return runSQL(database, statement) }
	}
	write := func(content []byte) func() error {
		return func() error { return os.WriteFile(filepath.Join(data, "seal"), content, 0o600) }
	}
	nothing := func() error { return nil }
	for _, row := range []struct {
		name       string
		do, undo   func() error
		flags      []string
		status     int
		says, hint string
	}{
		{"newer format", change("INSERT INTO schema_version (version_id, is_applied) VALUES (999, 1)"), change("DELETE FROM schema_version WHERE version_id = 999"),
			nil, 1, "its schema is version 999, but this keyroll knows only versions up to ", "a newer one; nothing was changed"},
		{"another seal", write(bytes.Repeat([]byte{7}, len(seal))), write(seal), nil, 1, "[WrongSeal]", ""},
		{"damaged seal", write(seal[1:]), write(seal), nil, 2, "does not hold exactly 32 bytes", ""},
		{"another vault domain", nothing, nothing, []string{"--vault-domain", "vault.azure.net"}, 1,
			"the vault domain of this database is vault.contoso.net, not vault.azure.net [Conflict]", "omit --vault-domain"},
		{"vault domain that is none", nothing, nothing, []string{"--vault-domain", "contoso.net"}, 2, `vault domain "contoso.net" must be a lower-case domain that begins with vault.`, ""},
		{"no page slots", nothing, nothing, []string{"--page-slots", "0"}, 2, "--page-slots: 0 is not within 1 to 1024", ""},
		{"too many page slots", nothing, nothing, []string{"--page-slots", "5000"}, 2, "--page-slots: 5000 is not within 1 to 1024", ""},
		{"roll rate below nothing", nothing, nothing, []string{"--roll-rate=-1"}, 2, "roll rate -1 must not be below 0", ""},
		{"address that is none", nothing, nothing, []string{"--listen", "nowhere"}, 2, "cannot listen on nowhere", "--listen"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := row.do(); err != nil {
				t.Fatal(err)
			}
			before := sums(t, data)
			o := h.run("", append([]string{"serve", "--data", data}, append([]string{"--listen", "127.0.0.1:0"}, row.flags...)...)...)
			t.Log(o.errOut)
			if o.status != row.status {
				t.Errorf("exit status %d, want %d", o.status, row.status)
			}
			if !strings.Contains(o.errOut, row.says) || !strings.Contains(o.errOut, row.hint) {
				t.Errorf("standard error does not say %q and %q", row.says, row.hint)
			}
			if after := sums(t, data); !maps.Equal(before, after) {
				t.Errorf("files changed from %v to %v", before, after)
			}
			if err := row.undo(); err != nil {
				t.Fatal(err)
			}
		})
	}
	h = serve(t, data)
	if got := h.textOf("name", "mailbox", "list"); got != "alice@contoso.com" {
		t.Errorf("after all that the folder has mailbox %q", got)
	}
}

// sums has the SHA-256 of every file below dir, except the files that SQLite keeps
// next to a database while it is open.
func sums(t *testing.T, dir string) map[string][sha256.Size]byte {
	t.Helper()
	all := map[string][sha256.Size]byte{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, "-shm") || strings.HasSuffix(path, "-wal") {
			return err
		}
		content, err := os.ReadFile(path)
		all[path] = sha256.Sum256(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (h *runningServer) url() string {
	h.t.Helper()
	info, _, err := connect.ServerOf(h.data)
	if err != nil {
		h.t.Fatal(err)
	}
	return info.URL
}

// invalidTokenFile is a file that holds no token.
func invalidTokenFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte("not-a-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// sendTruncated sends a request whose body ends before its stated length, and returns
// the answer.
func (h *runningServer) sendTruncated(method, path, body string, length int64) string {
	h.t.Helper()
	info, k, err := connect.ServerOf(h.data)
	if err != nil {
		h.t.Fatal(err)
	}
	token, err := os.ReadFile(info.AdminTokenFile)
	if err != nil {
		h.t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(info.URL, "https://"), k.Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%s",
		method, path, strings.TrimSpace(string(token)), length, body)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		h.t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(answer)
}

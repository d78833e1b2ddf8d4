package cmdlet

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
)

// TestWhatIfChangesNothingAndDescribesTheChange goes over every cmdlet of the table that
// changes something, with its own example.
func TestWhatIfChangesNothingAndDescribesTheChange(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("Key001.backup", []byte("sealed"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range Table() {
		if !c.Changes {
			continue
		}
		example := strings.ReplaceAll(c.Example, "-OutputFile Key001.backup", "-OutputFile new.backup")
		r := storyRecorder()
		got := runWith(r, example+" -WhatIf -Confirm", nil)
		if got.failure != nil || len(r.changes()) > 0 || !strings.HasPrefix(got.out, "What if: ") || !strings.HasSuffix(got.out, ".\n") || strings.Count(got.out, "\n") != 1 {
			t.Errorf("%s\n%v, %v, %q", example, got.failure, r.calls, got.out)
		}
		asked := r.calls
		for i := range asked { // -WhatIf shows the name of a policy, and uses its GUID from then on
			asked[i] = strings.NewReplacer(guid1, "USA_mailboxes", guid4, "Contoso_Global").Replace(asked[i])
		}
		if got := runWith(storyRecorder(), example+" -WhatIf", asJSON); got.out != "" || !strings.Contains(got.err, "What if: ") {
			t.Errorf("%s as JSON: %q, %q", example, got.out, got.err)
		}
		r = storyRecorder()
		if got := runWith(r, example+" -WhatIf:$false -Confirm:$false", nil); got.failure != nil || len(r.changes()) == 0 {
			t.Errorf("%s: %v, %v", example, got.failure, r.calls)
		}
		// -WhatIf fails if the service would refuse the change.
		for _, call := range r.changes() {
			name, _, _ := strings.Cut(call, " ")
			if _, ok := reflect.TypeFor[Service]().MethodByName(name); ok && !slices.Contains(asked, "DryRun "+call) {
				t.Errorf("%s does %q, and with -WhatIf asked for %q", example, call, asked)
			}
		}
		if err := os.Remove("new.backup"); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if left, err := filepath.Glob("*"); err != nil || len(left) != 1 {
		t.Errorf("files: %v, %v", left, err)
	}
}

func TestWhatIfInAPipelineDescribesEachObject(t *testing.T) {
	r := newRecorder()
	got := runWith(r, "Get-Mailbox | Set-Mailbox -DataEncryptionPolicy $null -WhatIf; (Get-Mailbox).Count", nil)
	want := "What if: Assign no policy to mailbox alice@contoso.com.\nWhat if: Assign no policy to mailbox bob@contoso.com.\n2\n"
	if got.failure != nil || got.out != want || len(r.changes()) > 0 {
		t.Errorf("%v, %q, %v", got.failure, got.out, r.calls)
	}
}

// storyRecorder has the objects that the examples of the table name.
func storyRecorder() *recorder {
	r := newRecorder()
	group := r.boxes[0]
	group.Name, group.Type = "finance@contoso.com", api.GroupMailbox
	user := r.boxes[0]
	user.Name, user.Type, user.ExternalAddress, user.AssignedPolicy = "carol@contoso.com", api.MailUser, "carol@mail.contoso.local", ""
	r.boxes = append(r.boxes, group, user)
	r.vaults[0].PurgeProtection = false
	return r
}

func TestRemovingAPermissionInUseWarns(t *testing.T) {
	const want = "WARNING: key Key001 version v1 in vault Contoso-A is still needed by policy USA_mailboxes for 12 active mailboxes, 1 inactive mailbox, 2 backups\n"
	for _, line := range []string{
		"Update-AzKeyVaultKey Contoso-A Key001 -Enable $false",
		"Update-AzKeyVaultKey Contoso-A Key001 " + version(1) + " -Enable $false",
		"Remove-AzKeyVaultKey Contoso-A Key001 -Confirm:$false",
		"Remove-AzKeyVaultAccessPolicy Contoso-A -ObjectId " + exchangeID + " -Confirm:$false",
		"Set-AzKeyVaultAccessPolicy Contoso-A -PermissionsToKeys get,list -ServicePrincipalName " + exchangeID,
		"Remove-AzKeyVault Contoso-A -Force",
		"Remove-AzKeyVault Contoso-A -InRemovedState -Confirm:$false",
		"Remove-AzKeyVaultKey Contoso-A Key001 -InRemovedState -Force",
	} {
		r := newRecorder()
		r.usage = []api.KeyUsage{
			{Vault: "Contoso-A", Key: "Key001", Version: "v1", Policy: "USA_mailboxes", Active: 12, Inactive: 1, Backups: 2, Verdict: api.InUse},
			{Vault: "Contoso-A", Key: "Key001", Version: "v0", Policy: "USA_mailboxes", Verdict: api.SafeToRetire},
		}
		if got := runWith(r, line, nil); got.failure != nil || got.err != want || len(r.changes()) != 1 {
			t.Errorf("%s: %v, %q, %v", line, got.failure, got.err, r.calls)
		}
		r.fail = map[string]error{"ListKeyUsage": &api.Problem{Code: api.Unavailable, Detail: "not reached"}}
		if got := runWith(r, line, nil); got.failure != nil || got.err != "WARNING: it is not known what still needs it: not reached\n" {
			t.Errorf("%s: %v, %q", line, got.failure, got.err)
		}
	}
	for _, line := range []string{"Update-AzKeyVaultKey Contoso-A Key001 -Enable $true", "Update-AzKeyVaultKey Contoso-A Key001 -Expires 12/31/9999",
		"Remove-AzKeyVaultAccessPolicy Contoso-A -UserPrincipalName alice@contoso.com -Confirm:$false",
		"Set-AzKeyVaultAccessPolicy Contoso-A -PermissionsToKeys get,wrapKey,unwrapKey -ServicePrincipalName " + exchangeID} {
		if got := mustRun(t, line, nil); strings.Contains(strings.Join(got.calls, ";"), "ListKeyUsage") {
			t.Errorf("%s asks for what is needed", line)
		}
	}
}

package node_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
)

// Vaults of the keys that replace lost ones.
const newVault1, newVault2 = "Contoso-New-Vault1", "Contoso-New-Vault2"

const teamSite, teamFile = "https://contoso.sharepoint.com/sites/team", "plans/a.bin"

// keptMail has lines that an mbox quotes, bytes above 127 and no newline at its end.
const keptMail = "From a@contoso.com Thu Jan  1 00:00:00 2026\nSubject: one\n\n>From here on\n\xff\xfe\x80 end\n\n" +
	"From b@contoso.com Fri Jan  2 00:00:00 2026\nSubject: two\n\nbody\n\n"

func dropKeys(w *nodetest.World, vaults ...string) {
	for _, vault := range vaults {
		w.Script(fmt.Sprintf("Remove-AzKeyVaultKey -VaultName %s -Name %s -Force", vault, nodetest.KeyOf(vault)))
	}
	w.Node.Policies.Close() // what is open
}

// endRetention advances the clock beyond the ninety days of the deleted keys, after
// which the vaults no longer have them.
func endRetention(t *testing.T, w *nodetest.World, vaults ...string) {
	t.Helper()
	if err := w.Node.DB.InTx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE vault_key SET purge_at = 1 WHERE deleted <> 0`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, vault := range vaults {
		if _, err := w.TryScript(fmt.Sprintf("Undo-AzKeyVaultKeyRemoval -VaultName %s -Name %s", vault, nodetest.KeyOf(vault))); codeOf(err) != api.NotFound {
			t.Fatalf("the key in vault %s can be recovered: %v", vault, err)
		}
	}
}

func TestMailUnderTwoDestroyedKeysIsReadByteForByteUnderANewPolicy(t *testing.T) {
	t.Parallel()
	w := nodetest.Start(t, node.Options{})
	w.StageMail()
	w.Mailbox(alice, nodetest.MailboxPolicy)
	w.Import(alice, keptMail)
	before := w.Export(alice)
	dropKeys(w, nodetest.VaultA1, nodetest.VaultA2)
	endRetention(t, w, nodetest.VaultA1, nodetest.VaultA2)
	w.Restart(nil)
	if _, err := exportMail(t.Context(), w, alice); codeOf(err) != api.VaultDenied {
		t.Errorf("with both keys destroyed: %v", err)
	}
	w.Vault(newVault1, exchange)
	w.Vault(newVault2, exchange)
	w.Script(fmt.Sprintf("New-DataEncryptionPolicy -Name Rescue -AzureKeyIDs %s, %s", w.KeyURI(newVault1), w.KeyURI(newVault2)),
		"Set-Mailbox "+alice+" -DataEncryptionPolicy Rescue")
	w.Restart(nil) // nothing of it was open
	if got := w.Export(alice); got != keptMail || got != before {
		t.Errorf("it reads %q", got)
	}
	m, err := w.Client.ShowMailbox(t.Context(), api.MailboxInput{Mailbox: alice})
	if err != nil || m.Protection.Policy != "Rescue" || !m.Protection.Current {
		t.Errorf("it is under %+v, %v", m.Protection, err)
	}
	w.Revoke(exchange, newVault1, newVault2)
	w.Node.Policies.Close()
	if _, err := exportMail(t.Context(), w, alice); codeOf(err) != api.VaultDenied {
		t.Errorf("without the new keys: %v", err)
	}
}

func TestMailIsReadableAfterKeysAreRecoveredFromSoftDelete(t *testing.T) {
	t.Parallel()
	w := nodetest.Start(t, node.Options{})
	w.StageMail()
	w.Mailbox(alice, nodetest.MailboxPolicy)
	w.Import(alice, keptMail)
	for _, recovered := range []string{nodetest.VaultA1, nodetest.VaultA2} { // either is enough
		dropKeys(w, nodetest.VaultA1, nodetest.VaultA2)
		if _, err := exportMail(t.Context(), w, alice); codeOf(err) != api.VaultDenied {
			t.Errorf("with both keys deleted: %v", err)
		}
		undo := func(vault string) {
			w.Script(fmt.Sprintf("Undo-AzKeyVaultKeyRemoval -VaultName %s -Name %s", vault, nodetest.KeyOf(vault)))
		}
		undo(recovered)
		if got := w.Export(alice); got != keptMail {
			t.Errorf("with the key in %s recovered it reads %q", recovered, got)
		}
		for _, vault := range []string{nodetest.VaultA1, nodetest.VaultA2} {
			if vault != recovered {
				undo(vault)
			}
		}
		w.VerifyClean()
	}
}

func TestMailIsReadableAfterKeysAreRestoredFromBackups(t *testing.T) {
	t.Parallel()
	w := nodetest.Start(t, node.Options{})
	w.StageMail()
	w.Mailbox(alice, nodetest.MailboxPolicy)
	w.Import(alice, keptMail)
	vaults := []string{nodetest.VaultA1, nodetest.VaultA2}
	folder := t.TempDir()
	file := func(vault string) string { return filepath.Join(folder, vault+".backup") }
	for _, vault := range vaults {
		w.Script(fmt.Sprintf("Backup-AzKeyVaultKey -VaultName %s -Name %s -OutputFile '%s'", vault, nodetest.KeyOf(vault), file(vault)))
	}
	dropKeys(w, vaults...)
	endRetention(t, w, vaults...)
	w.AddKey(vaults[0]) // another key of the name is not the key
	if _, err := exportMail(t.Context(), w, alice); codeOf(err) != api.VaultDenied {
		t.Errorf("under another key of the name: %v", err)
	}
	if _, err := w.TryScript(fmt.Sprintf("Restore-AzKeyVaultKey -VaultName %s -InputFile '%s'", vaults[0], file(vaults[0]))); codeOf(err) != api.Conflict {
		t.Errorf("restored over another key: %v", err)
	}
	dropKeys(w, vaults[0])
	endRetention(t, w, vaults[0])
	for _, vault := range vaults {
		w.Script(fmt.Sprintf("Restore-AzKeyVaultKey -VaultName %s -InputFile '%s'", vault, file(vault)))
	}
	w.Restart(nil)
	if got := w.Export(alice); got != keptMail {
		t.Errorf("it reads %q", got)
	}
	w.VerifyClean() // by each of the two
}

func TestSitesUnderTwoDestroyedKeysAreReadInRecoveryModeAndUnderNewKeys(t *testing.T) {
	t.Parallel()
	w := nodetest.Start(t, node.Options{})
	content := bytes.Repeat([]byte("\x00plans\xff"), 20_000)
	w.Site(teamSite)
	w.Put(teamSite, teamFile, content)
	w.StageSites()
	in := api.FileInput{SiteInput: api.SiteInput{Site: teamSite}, Path: teamFile}
	dropKeys(w, nodetest.VaultS1, nodetest.VaultS2)
	endRetention(t, w, nodetest.VaultS1, nodetest.VaultS2)
	w.Restart(nil)
	if _, err := getFile(t.Context(), w, in); codeOf(err) != api.VaultDenied {
		t.Errorf("with both keys destroyed: %v", err)
	}
	w.Vault(newVault1, sharePoint)
	w.Vault(newVault2, sharePoint)
	restore := []string{
		fmt.Sprintf("$a = Get-AzKeyVaultKey -VaultName %s -Name %s", newVault1, nodetest.KeyOf(newVault1)),
		fmt.Sprintf("$b = Get-AzKeyVaultKey -VaultName %s -Name %s", newVault2, nodetest.KeyOf(newVault2)),
		fmt.Sprintf("Restore-SPODataEncryptionPolicy -PrimaryKeyVaultName %s -PrimaryKeyName %s -PrimaryKeyVersion $a.Version "+
			"-SecondaryKeyVaultName %s -SecondaryKeyName %s -SecondaryKeyVersion $b.Version", newVault1, nodetest.KeyOf(newVault1), newVault2, nodetest.KeyOf(newVault2)),
	}
	if _, err := w.TryScript(restore...); codeOf(err) != api.Conflict {
		t.Errorf("restored out of recovery mode: %v", err)
	}
	sitePolicy := api.PolicyInput{Policy: nodetest.SitePolicy}
	if p, err := w.Client.RecoverPolicy(t.Context(), sitePolicy); err != nil || p.State != api.Recovery {
		t.Fatalf("recover: %+v, %v", p, err)
	}
	w.Restart(nil) // the mode outlives the process
	if got := w.Get(teamSite, teamFile); !bytes.Equal(got, content) {
		t.Errorf("in recovery mode %d bytes are read, or others", len(got))
	}
	w.Script(restore...)
	if p, err := w.Client.ShowPolicy(t.Context(), sitePolicy); err != nil || p.State != api.Registered || p.Primary.Vault != newVault1 || p.Secondary.Vault != newVault2 {
		t.Errorf("restored: %+v, %v", p, err)
	}
	w.Restart(nil)
	if got := w.Get(teamSite, teamFile); !bytes.Equal(got, content) {
		t.Errorf("under new keys %d bytes are read, or others", len(got))
	}
	w.VerifyClean()
	w.Revoke(sharePoint, newVault1, newVault2)
	w.Node.Policies.Close()
	if _, err := getFile(t.Context(), w, in); codeOf(err) != api.VaultDenied {
		t.Errorf("without the new keys, the recovery over: %v", err)
	}
}

func TestPurgeOfAPolicyWithDeletedVaultsNeedsForce(t *testing.T) {
	t.Parallel()
	w := nodetest.Start(t, node.Options{})
	w.StageMail()
	w.Mailbox(alice, nodetest.MailboxPolicy)
	w.Import(alice, keptMail)
	request := func(force bool) error {
		in := api.RequestPurgeInput{PolicyInput: api.PolicyInput{Policy: nodetest.MailboxPolicy}}
		in.Body.Reason, in.Body.Contact, in.Body.Force = "the tenant leaves", "security", force
		_, err := w.Client.RequestPurge(t.Context(), in)
		return err
	}
	refused := func(what string, err error, words string) {
		t.Helper()
		if codeOf(err) != api.Conflict || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", what, err)
		}
	}
	const permission = "the service still has its permission on key"
	refused("by force while both keys are there", request(true), permission)
	w.Script("Remove-AzKeyVault -VaultName " + nodetest.VaultA1 + " -Force")
	// In either order of trying the keys, one is available.
	refused("by force while one key is there", request(true), permission)
	w.Script("Remove-AzKeyVault -VaultName " + nodetest.VaultA2 + " -Force")
	refused("both vaults deleted", request(false), "deleted")
	if got := w.PolicyID(alice); got == "" {
		t.Error("a refusal has touched the mailbox")
	}
	if err := request(true); err != nil {
		t.Fatalf("both vaults deleted, by force: %v", err)
	}
	w.ApprovePurge(w.Approver("dana"), nodetest.MailboxPolicy)
	w.ApprovePurge(w.Approver("erin"), nodetest.MailboxPolicy)
	w.WaitPurges()
	p, err := w.Client.ShowPurge(t.Context(), api.PolicyInput{Policy: nodetest.MailboxPolicy})
	if err != nil || p.State != api.Purged || p.Containers != 1 || len(p.Destroy) != 2 {
		t.Errorf("the purge: %+v, %v", p, err)
	}
	for _, vault := range []string{nodetest.VaultA1, nodetest.VaultA2} { // with the permissions as they were
		w.Script(fmt.Sprintf("Undo-AzKeyVaultRemoval -VaultName %s -ResourceGroupName Contoso-CK -Location eastus", vault))
	}
	w.Restart(nil)
	if _, err := exportMail(t.Context(), w, alice); codeOf(err) != api.Gone {
		t.Errorf("with the vaults recovered: %v", err)
	}
}

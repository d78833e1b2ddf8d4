package node_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
)

func TestChecklist26RecoveryAfterLosingBothKeys(t *testing.T) {
	x := newTenancy(t, node.Options{})
	for _, k := range kinds {
		next := x.others(k, "Row26")
		for _, vault := range k.vaults {
			x.Script(fmt.Sprintf("Remove-AzKeyVaultKey -VaultName %s -Name Key001 -Force", vault))
		}
		x.clearKeyCache()
		x.wantRefusedRead(k, api.VaultDenied, "both keys lost")
		name := k.policy
		if k.PolicyKind == api.SitePolicy {
			var keys [2]api.KeyVersion
			for i := range keys {
				keys[i] = x.newest(x.uri(next[i], "Key001"))
			}
			restore := fmt.Sprintf("Restore-SPODataEncryptionPolicy -PrimaryKeyVaultName %s -PrimaryKeyName Key001 -PrimaryKeyVersion %s -SecondaryKeyVaultName %s -SecondaryKeyName Key001 -SecondaryKeyVersion %s",
				next[0], keys[0].Version, next[1], keys[1].Version)
			_, err := x.TryScript(restore)
			refused(t, "a restore out of recovery mode", err, api.Conflict)
			if _, err := x.Client.RecoverPolicy(t.Context(), api.PolicyInput{Policy: k.policy}); err != nil {
				t.Fatal(err)
			}
			x.wantReadable(k, "in recovery mode")
			x.Script(restore)
			if got := x.scriptValue("(Get-SPODataEncryptionPolicy).State"); got != "Registered" {
				t.Errorf("restored, the policy is %s", got)
			}
		} else {
			name = "Row26" + k.policy
			x.Script(fmt.Sprintf("New-%s -Name %s -AzureKeyIDs %s, %s", k.noun(), name, x.uri(next[0], "Key001"), x.uri(next[1], "Key001")))
			if k.PolicyKind == api.MailboxPolicy {
				x.Script(fmt.Sprintf("Set-Mailbox %s -DataEncryptionPolicy %s", k.unit, name))
			} else {
				x.Script("Set-M365DataAtRestEncryptionPolicyAssignment " + name)
			}
		}
		x.waitForRolls()
		x.clearKeyCache()
		x.wantReadable(k, "under new keys")
		if key := x.openedBy(name); !strings.Contains(key, "https://"+next[0]+".") && !strings.Contains(key, "https://"+next[1]+".") {
			t.Errorf("%s: opened by %s", name, key)
		}
	}
}

func TestChecklist27DataPurgeByPermissionRequestApprovalAndOrderedDeletion(t *testing.T) {
	x := newTenancy(t, node.Options{})
	x.AnswerYes()
	dana, erin := x.Approver("dana"), x.Approver("erin")
	for _, k := range kinds {
		p := x.show(k.policy)
		request := func(force bool) error {
			if k.PolicyKind == api.MailboxPolicy {
				line := "Set-DataEncryptionPolicy USA_mailboxes -PermanentDataPurgeRequested -PermanentDataPurgeReason exit -PermanentDataPurgeContact Ann"
				if force {
					line += " -Force"
				}
				_, err := x.TryScript(line)
				return err
			}
			in := api.RequestPurgeInput{PolicyInput: api.PolicyInput{Policy: k.policy}}
			in.Body.Reason, in.Body.Contact, in.Body.Force = "exit", "Ann", force
			_, err := x.Client.RequestPurge(t.Context(), in)
			return err
		}
		refused(t, k.policy+", permissions in place", request(false), api.Conflict)
		x.Revoke(k.service, k.vaults[0])
		refused(t, k.policy+", one permission in place", request(false), api.Conflict)
		x.Script(fmt.Sprintf("Remove-AzKeyVault -VaultName %s -Force", k.vaults[1]))
		refused(t, k.policy+", a vault deleted", request(false), api.Conflict)
		if err := request(true); err != nil {
			t.Fatalf("%s, a vault deleted, by force: %v", k.policy, err)
		}
		x.clearKeyCache()
		x.wantRefusedRead(k, api.VaultDenied, "once requested")
		switch k.PolicyKind { // nothing comes under it any more
		case api.MailboxPolicy:
			_, err := x.TryScript("Set-Mailbox bob@contoso.com -DataEncryptionPolicy USA_mailboxes")
			refused(t, "assigning it", err, api.Conflict)
		case api.MultiWorkloadPolicy:
			_, err := x.TryScript("Set-M365DataAtRestEncryptionPolicyAssignment Contoso_Global")
			refused(t, "assigning it", err, api.Conflict)
		}
		file := fmt.Sprintf("%s-%d.key", p.AvailabilityKey, p.AvailabilityVersion)
		x.ApprovePurge(dana, k.policy)
		again := x.As(dana)
		_, err := again.Client.ApprovePurge(t.Context(), api.PolicyInput{Policy: k.policy})
		again.Client.Close()
		refused(t, "a second word of the same approver", err, api.Conflict)
		x.WaitPurges()
		if got, err := x.Client.ShowPurge(t.Context(), api.PolicyInput{Policy: k.policy}); err != nil || got.State != api.PurgeRequested || len(got.Approvals) != 1 || x.availabilityFiles()[file] == nil {
			t.Errorf("%s, one approver: %+v, %v", k.policy, got, err)
		}
		x.ApprovePurge(erin, k.policy)
		x.WaitPurges()
		got, err := x.Client.ShowPurge(t.Context(), api.PolicyInput{Policy: k.policy})
		if err != nil || got.State != api.Purged || got.PolicyDeleted == nil || got.ContainersMarked == nil || got.AvailabilityKeyDestroyed == nil ||
			got.ContainersMarked.Before(*got.PolicyDeleted) || got.AvailabilityKeyDestroyed.Before(*got.ContainersMarked) || len(got.Destroy) != 2 {
			t.Errorf("%s: %+v, %v", k.policy, got, err)
		}
		if x.availabilityFiles()[file] != nil {
			t.Errorf("%s: its availability key is there", k.policy)
		}
		// The customer's permission comes too late.
		x.Script(fmt.Sprintf("Undo-AzKeyVaultRemoval -VaultName %s -ResourceGroupName Contoso-CK -Location northeurope", k.vaults[1]))
		x.restore(k)
		x.wantRefusedRead(k, api.Gone, "purged")
		if k.PolicyKind == api.SitePolicy {
			late := k
			late.unit = "https://contoso.sharepoint.com/sites/late"
			x.Site(late.unit)
			if p := x.protection(late); p.Policy != "Service-managed" {
				t.Errorf("a new site is under %+v", p)
			}
		}
		if x.protection(k).Purged == nil {
			t.Errorf("%s is not marked", k.unit)
		}
	}
}

func TestChecklist28RollBackToServiceManagedKeys(t *testing.T) {
	x := newTenancy(t, node.Options{})
	x.Script("Set-Mailbox alice@contoso.com -DataEncryptionPolicy $null", "Set-M365DataAtRestEncryptionPolicyAssignment -DataEncryptionPolicy $null")
	x.waitForRolls()
	x.Leave(sites.policy)
	x.waitForRolls()
	x.Node.Upkeep.Wait()
	for _, k := range kinds {
		if got := x.protection(k); got.Policy != "Service-managed" || !got.Current || !got.IsEncrypted {
			t.Errorf("%s: under %+v", k.unit, got)
		}
		for _, vault := range k.vaults {
			list, err := x.Client.ListKeyUsage(t.Context(), api.KeyUsageInput{Vault: vault})
			if err != nil || len(list.Items) != 1 || list.Items[0].Active+list.Items[0].Sites+list.Items[0].Workloads != 0 {
				t.Errorf("%s protects %+v, %v", vault, list.Items, err)
			}
		}
		x.revoke(k)
		x.wantReadable(k, "without the customer's keys")
	}
}

func TestChecklist29SoftDelete90DaysPurgeProtectionRecoverBackupRestore(t *testing.T) {
	x := newTenancy(t, node.Options{})
	for i, k := range kinds {
		key := fmt.Sprintf("-VaultName %s -Name Key001", k.vaults[0])
		version := x.show(k.policy).Primary.Version
		if got := x.scriptValue(fmt.Sprintf("$v = Get-AzKeyVault %s; $v.SoftDeleteRetentionInDays; $v.EnableSoftDelete; $v.EnablePurgeProtection", k.vaults[0])); got != "90\nTrue\nTrue" {
			t.Errorf("%s: %q", k.vaults[0], got)
		}
		file := filepath.Join(t.TempDir(), "key.backup")
		x.Script(fmt.Sprintf("Backup-AzKeyVaultKey %s -OutputFile '%s'", key, file))
		_, err := x.TryScript(fmt.Sprintf("Restore-AzKeyVaultKey -VaultName %s -InputFile '%s'", k.vaults[0], file))
		refused(t, "a restore over the key", err, api.Conflict)

		x.Revoke(k.service, k.vaults[1]) // what follows hangs on the first
		x.Script("Remove-AzKeyVaultKey " + key + " -Force")
		x.clearKeyCache()
		x.wantRefusedRead(k, api.VaultDenied, "the key deleted")
		_, err = x.TryScript("Remove-AzKeyVaultKey " + key + " -InRemovedState -Force")
		refused(t, "destroying the key", err, api.Forbidden)
		x.Script("Undo-AzKeyVaultKeyRemoval " + key)
		x.clearKeyCache()
		x.wantReadable(k, "the key recovered")
		x.Script(fmt.Sprintf("Remove-AzKeyVault -VaultName %s -Force", k.vaults[0]))
		x.clearKeyCache()
		x.wantRefusedRead(k, api.VaultDenied, "the vault deleted")
		_, err = x.TryScript(fmt.Sprintf("Remove-AzKeyVault -VaultName %s -Location westus -InRemovedState -Force", k.vaults[0]))
		refused(t, "destroying the vault", err, api.Conflict, "purge protection")
		x.Script(fmt.Sprintf("Undo-AzKeyVaultRemoval -VaultName %s -ResourceGroupName Contoso-CK -Location westus", k.vaults[0]))
		x.clearKeyCache()
		x.wantReadable(k, "the vault recovered")
		x.restore(k)

		// A key restored in another vault is the same key.
		spare := fmt.Sprint("Row29-spare-", i)
		x.newVault(k, spare, 0)
		if got := x.scriptValue(fmt.Sprintf("(Restore-AzKeyVaultKey -VaultName %s -InputFile '%s').Version", spare, file)); got != version {
			t.Errorf("restored is version %s, want %s", got, version)
		}
		if k.PolicyKind == api.SitePolicy {
			x.Script(update(spare, "Key001", version, "Primary"))
		} else {
			x.Script(fmt.Sprintf("Set-%s %s -Replace -AzureKeyIDs %s, %s", k.noun(), k.policy, x.uri(spare, "Key001"), x.uri(k.vaults[1], "Key001")))
		}
		x.FinishRoll(k.policy)
		x.revoke(k)
		x.wantReadable(k, "by the restored key")
		if got := x.openedBy(k.policy); !strings.Contains(got, "https://"+spare+".") {
			t.Errorf("%s: opened by %s", k.policy, got)
		}
	}
}

func TestChecklist30TestOfAPolicyProbesEachRoot(t *testing.T) {
	x := newOutsideTenancy(t, node.Options{})
	for _, k := range kinds {
		probe := func(when string, primary, secondary bool) []api.Probe {
			t.Helper()
			list, err := x.Client.TestPolicy(t.Context(), api.PolicyInput{Policy: k.policy})
			if err != nil || len(list.Items) != 3 {
				t.Fatalf("%s, %s: %+v, %v", k.policy, when, list.Items, err)
			}
			for i, want := range []struct {
				root string
				does bool
			}{{"primary", primary}, {"secondary", secondary}, {"availability", true}} {
				got := list.Items[i]
				if got.Root != want.root || got.Wraps != want.does || got.Unwraps != want.does || (got.Detail == "") != want.does {
					t.Errorf("%s, %s: %+v", k.policy, when, got)
				}
			}
			return list.Items
		}
		probe("at first", true, true)
		off := fmt.Sprintf("Update-AzKeyVaultKey -VaultName %s -Name Key001 -Enable ", k.vaults[0])
		x.Script(off + "$false")
		if got := probe("primary disabled", false, true)[0].Detail; !strings.Contains(got, "disabled") {
			t.Errorf("%s: %s", k.policy, got)
		}
		verified, err := x.Client.Verify(t.Context(), api.VerifyInput{Policy: k.policy}, nil)
		if err != nil || len(verified.Probes) != 3 || verified.Probes[0].Unwraps || !verified.Probes[1].Unwraps || !verified.Probes[2].Unwraps {
			t.Errorf("%s: verify has %+v, %v", k.policy, verified.Probes, err)
		}
		x.Script(off + "$true")
		x.disconnect(k.vaults[1])
		probe("secondary away", true, false)
		x.disconnect()
	}
	got := x.scriptValue("Test-M365DataAtRestEncryptionPolicy Contoso_Global | ForEach-Object { $_.Root; $_.Wraps; $_.Unwraps }")
	if want := "primary\nTrue\nTrue\nsecondary\nTrue\nTrue\navailability\nTrue\nTrue"; got != want {
		t.Errorf("the cmdlet shows %q", got)
	}
}

func TestChecklist31OnboardingValidatesThenEnables(t *testing.T) {
	x := newTenancy(t, node.Options{})
	for k, scenario := range map[kind]string{mailboxes: "EXO", sites: "SPO", stores: "MDEP"} {
		next := x.others(k, "Row31")
		ask := func(mode string) string {
			t.Helper()
			return x.scriptValue(fmt.Sprintf("$r = New-CustomerKeyOnboardingRequest -OrganizationId contoso -Scenario %s -Subscription1 %s -KeyIdentifier1 %s -Subscription2 %s -KeyIdentifier2 %s -OnboardingMode %s",
				scenario, firstSub, x.uri(next[0], "Key001"), secondSub, x.uri(next[1], "Key001"), mode),
				"(Get-CustomerKeyOnboardingRequest -OrganizationId contoso -RequestId $r.RequestId).ValidationResult; $r.FailedValidations")
		}
		x.Revoke(k.service, next[1])
		if got := ask("Validate"); !strings.HasPrefix(got, "Failure\n") || !strings.Contains(got, "Set-AzKeyVaultAccessPolicy -VaultName "+next[1]) || !strings.Contains(got, k.service) {
			t.Errorf("%s without a permission: %q", scenario, got)
		}
		_, err := x.create(k, "Row31"+scenario, x.uri(next[0], "Key001"), x.uri(next[1], "Key001"))
		refused(t, scenario+" without a permission", err, api.VaultDenied)
		x.grant(k, next[1], "get,wrapKey,unwrapKey")
		for _, mode := range []string{"Validate", "Enable"} {
			if got := ask(mode); got != "Success" {
				t.Errorf("%s, %s: %q", scenario, mode, got)
			}
		}
		policies := len(policyNames(x.World, t))
		if _, err := x.create(k, "Row31"+scenario+"b", x.uri(next[0], "Key001"), x.uri(next[1], "Key001")); err != nil || len(policyNames(x.World, t)) <= policies {
			t.Errorf("%s, then the policy: %v", scenario, err)
		}
	}
}

func TestChecklist32ServiceManagedKeysBelowEverything(t *testing.T) {
	t.Parallel()
	x := start(t, node.Options{}) // a tenant that never brings a key
	x.Mailbox(mailboxes.unit, "")
	x.Site(sites.unit)
	for _, k := range kinds {
		x.write(k, said)
		if got := x.protection(k); got.Policy != "Service-managed" || !got.IsEncrypted || !got.Current {
			t.Errorf("%s: under %+v", k.unit, got)
		}
		x.clearKeyCache()
		x.wantReadable(k, "without a key of the customer's")
	}
	blobs := x.blobs()
	for _, blob := range blobs {
		if bytes.Contains(blob, []byte("body of it all")) {
			t.Error("a blob is plain")
		}
	}
	if len(blobs) != 3 {
		t.Errorf("there are %d blobs", len(blobs))
	}
	managed := api.PolicyInput{Policy: "Service-managed"}
	_, err := x.Client.LeavePolicy(t.Context(), api.LeavePolicyInput{PolicyInput: managed})
	refused(t, "leaving it", err, api.InvalidArgument)
	no := false
	set := api.SetPolicyInput{PolicyInput: managed}
	set.Body.Enabled = &no
	_, err = x.Client.SetPolicy(t.Context(), set)
	refused(t, "disabling it", err, api.Conflict)
	purge := api.RequestPurgeInput{PolicyInput: managed}
	purge.Body.Reason, purge.Body.Contact = "exit", "Ann"
	_, err = x.Client.RequestPurge(t.Context(), purge)
	refused(t, "purging it", err, api.InvalidArgument)
	x.VerifyClean()
}

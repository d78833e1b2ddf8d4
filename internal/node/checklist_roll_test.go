package node_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/cmdlet"
	"keyroll/internal/node"
)

// verdicts returns the ledger's verdicts on the versions of a vault's key, in the given
// order.
func (x tenancy) verdicts(vault string, versions ...string) (list []api.Verdict) {
	x.t.Helper()
	for _, version := range versions {
		usage, err := x.Client.ListKeyUsage(x.t.Context(), api.KeyUsageInput{Vault: vault, Version: version})
		if err != nil || len(usage.Items) != 1 {
			x.t.Fatalf("%s %s: %+v, %v", vault, version, usage.Items, err)
		}
		list = append(list, usage.Items[0].Verdict)
	}
	return list
}

func TestChecklist21RollWithRefresh(t *testing.T) {
	x := newTenancy(t, node.Options{})
	for _, k := range versioned {
		refresh := fmt.Sprintf("Set-%s %s -Refresh", k.noun(), k.policy)
		_, err := x.TryScript(refresh)
		refused(t, "a refresh without a new version", err, api.NoNewVersion)
		before := x.show(k.policy)
		first, second := x.newKey(k.vaults[0], "Key001"), x.newKey(k.vaults[1], "Key001")
		x.Script(refresh)
		x.wantReadable(k, "while it rolls")
		x.FinishRoll(k.policy)
		after := x.show(k.policy)
		if after.Primary.Version != first || after.Secondary.Version != second || after.Generation != before.Generation+1 || x.protection(k).DataEncryptionPolicyID != after.Revision {
			t.Errorf("%s: rolled to %+v", k.policy, after)
		}
		x.clearKeyCache()
		x.wantReadable(k, "after the roll")
		x.Node.Upkeep.Wait()
		if got := x.verdicts(k.vaults[0], before.Primary.Version, first); got[0] != api.SafeToRetire || got[1] != api.InUse {
			t.Errorf("%s: the two versions are %v", k.policy, got)
		}
	}
	// A site policy names its versions: it is updated, not refreshed.
	x.newKey(sites.vaults[0], "Key001")
	_, err := x.Client.RefreshPolicy(t.Context(), api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: sites.policy}})
	refused(t, "a refresh of sites", err, api.InvalidArgument)
}

func TestChecklist22RollOneNamedVersionOneAtATime(t *testing.T) {
	x := newTenancy(t, node.Options{Idle: true})
	before := x.show(sites.policy)
	named := [2]string{x.newKey(sites.vaults[0], "Key001"), x.newKey(sites.vaults[1], "Key001")}
	for _, vault := range sites.vaults { // newer ones, which no policy names
		x.newKey(vault, "Key001")
	}
	x.Script(update(sites.vaults[0], "Key001", named[0], "Primary"))
	_, err := x.TryScript(update(sites.vaults[1], "Key001", named[1], "Secondary"))
	refused(t, "a second roll", err, api.RollInProgress)
	x.wantReadable(sites, "while it rolls")
	x.Restart(func(o *node.Options) { o.Idle = false })
	x.waitForRolls()
	if p := x.show(sites.policy); p.Primary.Version != named[0] || p.Secondary.Version != before.Secondary.Version {
		t.Errorf("after the primary's roll: %+v", p)
	}
	x.Script(update(sites.vaults[1], "Key001", named[1], "Secondary"))
	x.FinishRoll(sites.policy)
	if p := x.show(sites.policy); p.Primary.Version != named[0] || p.Secondary.Version != named[1] || x.protection(sites).DataEncryptionPolicyID != p.Revision {
		t.Errorf("after the secondary's roll: %+v", p)
	}
	x.wantReadable(sites, "after both")
	// The others name keys without a version.
	for _, k := range versioned {
		in := api.UpdatePolicyInput{PolicyInput: api.PolicyInput{Policy: k.policy}}
		in.Body.KeyType, in.Body.Key = "primary", api.KeyVersion{Vault: k.vaults[0], Key: "Key001", Version: x.newKey(k.vaults[0], "Key001")}
		_, err := x.Client.UpdatePolicy(t.Context(), in)
		refused(t, k.policy+", one version", err, api.InvalidArgument)
	}
}

// others makes two more vaults with a key each for a kind.
func (x tenancy) others(k kind, name string) (pair [2]string) {
	x.t.Helper()
	for i := range pair {
		pair[i] = fmt.Sprintf("%s-%s-%d", name, k.PolicyKind[:4], i)
		x.newVault(k, pair[i], i)
		x.newKey(pair[i], "Key001")
	}
	return pair
}

func TestChecklist23ReplaceKeys(t *testing.T) {
	x := newTenancy(t, node.Options{})
	for _, k := range kinds {
		next := x.others(k, "Row23")
		if k.PolicyKind == api.SitePolicy {
			for i, which := range []string{"Primary", "Secondary"} {
				x.Script(update(next[i], "Key001", x.newest(x.uri(next[i], "Key001")).Version, which))
				x.FinishRoll(k.policy)
			}
		} else {
			x.Script(fmt.Sprintf("Set-%s %s -Replace -AzureKeyIDs %s, %s", k.noun(), k.policy, x.uri(next[0], "Key001"), x.uri(next[1], "Key001")))
			x.FinishRoll(k.policy)
		}
		x.Node.Upkeep.Wait()
		if p := x.show(k.policy); p.Primary.Vault != next[0] || p.Secondary.Vault != next[1] || x.protection(k).DataEncryptionPolicyID != p.Revision {
			t.Errorf("%s: uses %+v", k.policy, p)
		}
		x.revoke(k)
		x.wantReadable(k, "the old keys taken away")
		x.Revoke(k.service, next[:]...)
		x.clearKeyCache()
		x.wantRefusedRead(k, api.VaultDenied, "the new keys taken away")
	}
}

// warnings runs lines and returns their warnings.
func (x tenancy) warnings(lines ...string) string {
	x.t.Helper()
	var out, warned bytes.Buffer
	err := cmdlet.Run(x.t.Context(), strings.Join(lines, "\n"), cmdlet.Options{Service: x.Client, Vaults: x.Vaults(), Now: time.Now, Out: &out, Err: &warned})
	if err != nil {
		x.t.Fatal(err)
	}
	return warned.String()
}

func TestChecklist24OldVersionsStillUnwrapAfterARollAndWarnBeforeTheyGo(t *testing.T) {
	x := newTenancy(t, node.Options{})
	x.SetState(underTenant, api.Inactive)
	x.Mailbox("idle@contoso.com", mailboxes.policy)
	x.Import("idle@contoso.com", said)
	x.SetState("idle@contoso.com", api.Inactive)
	x.Backup("site", sites.unit)
	x.Node.Upkeep.Wait()
	for _, c := range []struct {
		kind
		needs string
		read  func() string // what is under the old version
	}{
		{mailboxes, "1 inactive mailbox", func() string { return x.Export("idle@contoso.com") }},
		{stores, "1 inactive mailbox", func() string { return x.Export(underTenant) }},
		{sites, "1 backup", func() string {
			x.Restore("site", sites.unit, sites.unit+"-copy")
			return string(x.Get(sites.unit+"-copy", "plan.txt"))
		}},
	} {
		before := x.show(c.policy)
		first, second := x.newKey(c.vaults[0], "Key001"), x.newKey(c.vaults[1], "Key001")
		if c.PolicyKind == api.SitePolicy {
			x.Script(update(c.vaults[0], "Key001", first, "Primary"))
			x.FinishRoll(c.policy)
			x.Script(update(c.vaults[1], "Key001", second, "Secondary"))
		} else {
			x.Script(fmt.Sprintf("Set-%s %s -Refresh", c.noun(), c.policy))
		}
		x.FinishRoll(c.policy)
		x.Node.Upkeep.Wait()
		old := fmt.Sprintf("-VaultName %s -Name Key001", c.vaults[0])
		for what, lines := range map[string][]string{
			"disabling": {fmt.Sprintf("Update-AzKeyVaultKey %s -Version %s -Enable $false", old, before.Primary.Version), fmt.Sprintf("Update-AzKeyVaultKey %s -Version %s -Enable $true", old, before.Primary.Version)},
			"deleting":  {"Remove-AzKeyVaultKey " + old + " -Force", "Undo-AzKeyVaultKeyRemoval " + old},
		} {
			want := fmt.Sprintf("key Key001 version %s in vault %s is still needed by policy %s for %s", before.Primary.Version, c.vaults[0], c.policy, c.needs)
			if got := x.warnings(lines...); !strings.Contains(got, want) {
				t.Errorf("%s warns %q, want %q", what, got, want)
			}
		}
		x.clearKeyCache()
		if got := c.read(); got != said {
			t.Errorf("%s: under the old version read %q", c.policy, got)
		}
		found := false
		for _, entry := range x.audited(c.policy) {
			_, by, _ := strings.Cut(entry, " done unwrap ")
			found = found || strings.Contains(by, before.Primary.Version) || strings.Contains(by, before.Secondary.Version)
		}
		if !found {
			t.Errorf("%s: no old version has opened anything", c.policy)
		}
	}
}

func TestChecklist25AvailabilityKeyRollsOnScheduleOnDemandAndWithANewPolicy(t *testing.T) {
	x := newOutsideTenancy(t, node.Options{})
	old := x.availabilityFiles()
	rolled, err := x.Client.RollAvailabilityKeys(t.Context(), api.RollAvailabilityKeysInput{})
	if err != nil || rolled.Keys != len(old) || rolled.Destroyed != len(old) {
		t.Errorf("rolled %+v of %d, %v", rolled, len(old), err)
	}
	left := x.availabilityFiles()
	for name := range old {
		if _, there := left[name]; there {
			t.Errorf("%s is still there", name)
		}
	}
	opens := func(version uint32) {
		t.Helper()
		for _, k := range kinds {
			probes, err := x.Client.TestPolicy(t.Context(), api.PolicyInput{Policy: k.policy})
			if p := x.show(k.policy); err != nil || p.AvailabilityVersion != version || len(probes.Items) != 3 || !probes.Items[2].Unwraps {
				t.Errorf("%s: version %d, %+v, %v", k.policy, p.AvailabilityVersion, probes.Items, err)
			}
		}
	}
	opens(2)
	ids := map[string]bool{}
	for i, k := range kinds { // a tenant's own way
		made, err := x.create(k, fmt.Sprint("Row25-", i), x.uri(k.vaults[0], "Key001"), x.uri(k.vaults[1], "Key001"))
		if err != nil || ids[made.AvailabilityKey] || made.AvailabilityKey == x.show(k.policy).AvailabilityKey {
			t.Errorf("a new policy has availability key %s, %v", made.AvailabilityKey, err)
		}
		ids[made.AvailabilityKey] = true
	}
	x.waitForRolls()
	x.clock.advance(node.DefaultAvailabilityRollEvery)
	x.Restart(nil)
	x.waitUntil("availability keys are rolled on schedule", func() bool {
		for _, k := range kinds {
			if x.show(k.policy).AvailabilityVersion != 3 {
				return false
			}
		}
		return true
	})
	opens(3)
	for _, k := range versioned {
		x.disconnect(k.vaults[:]...)
		x.clearKeyCache()
		x.wantReadable(k, "by its rolled availability key")
		if key, want := x.openedBy(k.policy), fmt.Sprintf("availability key %s version 3", x.show(k.policy).AvailabilityKey); !strings.HasPrefix(key, want) {
			t.Errorf("%s: opened by %s, want %s", k.policy, key, want)
		}
	}
}

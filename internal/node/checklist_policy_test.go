package node_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
)

// noun returns the noun of the cmdlets for a kind's policies.
func (k kind) noun() string {
	if k.PolicyKind == api.MultiWorkloadPolicy {
		return "M365DataAtRestEncryptionPolicy"
	}
	return "DataEncryptionPolicy"
}

func TestChecklist15CreateListGetSetEnableDisable(t *testing.T) {
	x := newTenancy(t, node.Options{})
	for _, k := range versioned {
		noun := k.noun()
		x.Script(fmt.Sprintf("New-%s -Name Row15 -AzureKeyIDs %s, %s -Description 'the first'", noun, x.uri(k.vaults[0], "Key001"), x.uri(k.vaults[1], "Key001")))
		guid := x.scriptValue(fmt.Sprintf("(Get-%s Row15).Guid", noun))
		list := x.Script(fmt.Sprintf("Get-%s | ForEach-Object { $_.Name }", noun))
		if want := []string{k.policy, "Row15"}; !slices.Equal(strings.Fields(list), want) {
			t.Errorf("%s lists %q, want %q", noun, strings.Fields(list), want)
		}
		x.Script(fmt.Sprintf("Set-%s Row15 -Name Row15%s -Description 'the second'", noun, k.policy))
		got := x.scriptValue(fmt.Sprintf("(Get-%s Row15%s).Guid; (Get-%s %s).Description; (Get-%s %s).Enabled", noun, k.policy, noun, guid, noun, guid))
		if want := guid + "\nthe second\nTrue"; got != want {
			t.Errorf("%s shows %q, want %q", noun, got, want)
		}
		assign := fmt.Sprintf("Set-Mailbox %s -DataEncryptionPolicy %s", mailboxes.unit, guid)
		if k.PolicyKind == api.MultiWorkloadPolicy {
			assign = "Set-M365DataAtRestEncryptionPolicyAssignment " + guid
		}
		x.Script(fmt.Sprintf("Set-%s %s -Enabled $false", noun, guid))
		if got := x.scriptValue(fmt.Sprintf("(Get-%s %s).Enabled", noun, guid)); got != "False" {
			t.Errorf("%s shows Enabled %s", noun, got)
		}
		_, err := x.TryScript(assign)
		refused(t, "assigning a disabled policy", err, api.Conflict)
		x.Script(fmt.Sprintf("Set-%s %s -Enabled $true", noun, guid), assign)
		x.waitForRolls()
		if p := x.protection(k); p.PolicyID != guid {
			t.Errorf("%s: under %+v", k.policy, p)
		}
		x.wantReadable(k, "under the policy that was enabled again")
	}
	// A site policy is registered, and applies as long as it exists.
	if got := x.scriptValue("(Get-SPODataEncryptionPolicy).State; (Get-SPODataEncryptionPolicy).Guid"); got != "Registered\n"+x.show(sites.policy).ID {
		t.Errorf("the site policy is %q", got)
	}
	no := false
	in := api.SetPolicyInput{PolicyInput: api.PolicyInput{Policy: sites.policy}}
	in.Body.Enabled = &no
	_, err := x.Client.SetPolicy(t.Context(), in)
	refused(t, "disabling the site policy", err, api.Conflict)
}

func TestChecklist16FiftyMailboxPoliciesOneAssignedOneAGeo(t *testing.T) {
	x := newTenancy(t, node.Options{})
	pair := func(k kind, name string) error {
		t.Helper()
		_, err := x.create(k, name, x.uri(k.vaults[0], "Key001"), x.uri(k.vaults[1], "Key001"))
		return err
	}
	for i := 2; i <= 50; i++ {
		if err := pair(mailboxes, fmt.Sprint("Row16-", i)); err != nil {
			t.Fatalf("policy %d: %v", i, err)
		}
	}
	refused(t, "the 51st policy", pair(mailboxes, "Row16-51"), api.Conflict, "50")
	x.Script("Set-DataEncryptionPolicy Row16-50 -Enabled $false")
	if err := pair(mailboxes, "Row16-51"); err != nil {
		t.Errorf("in place of a disabled one: %v", err)
	}

	if err := pair(stores, "Row16work"); err != nil {
		t.Fatal(err)
	}
	x.AssignTenant("Row16work")
	x.waitForRolls()
	if x.show(stores.policy).Assigned || !x.show("Row16work").Assigned || x.protection(stores).Policy != "Row16work" {
		t.Errorf("assigned are %t and %t; the store is under %s", x.show(stores.policy).Assigned, x.show("Row16work").Assigned, x.protection(stores).Policy)
	}

	refused(t, "a second policy of the geo", pair(sites, sites.policy), api.AlreadyExists)
	if err := pair(sites, "Row16geo"); err != nil {
		t.Errorf("a policy of another geo: %v", err)
	}
}

func TestChecklist17AssignReassignAndAssignBeforeMigration(t *testing.T) {
	x := newTenancy(t, node.Options{})
	for _, k := range kinds {
		if _, err := x.create(k, "Row17"+string(k.PolicyKind[:4]), x.uri(k.vaults[1], "Key001"), x.uri(k.vaults[0], "Key001")); err != nil {
			t.Fatal(err)
		}
	}
	x.waitForRolls()
	under := func(k kind, policy string) {
		t.Helper()
		if p := x.protection(k); p.Policy != policy || p.DataEncryptionPolicyID != x.show(policy).Revision || !p.Current {
			t.Errorf("%s: under %+v, want %s", k.unit, p, policy)
		}
		x.wantReadable(k, "under "+policy)
	}
	x.Script("Set-Mailbox alice@contoso.com -DataEncryptionPolicy Row17mail")
	under(mailboxes, "Row17mail")
	x.Script("Set-Mailbox alice@contoso.com -DataEncryptionPolicy USA_mailboxes")
	under(mailboxes, mailboxes.policy)

	dave := mailboxes
	dave.unit = "dave@contoso.com"
	x.Script("New-MailUser -Name dave@contoso.com -ExternalEmailAddress dave@mail.contoso.local",
		"Set-MailUser dave@contoso.com -DataEncryptionPolicy Row17mail")
	x.Import(dave.unit, said)
	under(dave, "Row17mail")

	x.Script("Set-M365DataAtRestEncryptionPolicyAssignment Row17mult")
	x.FinishRoll("Row17mult")
	bob := mailboxes
	bob.unit = underTenant
	under(stores, "Row17mult")
	under(bob, "Row17mult")
	under(mailboxes, mailboxes.policy) // one of its own has precedence
	erin := mailboxes
	erin.unit = "erin@contoso.com"
	x.Mailbox(erin.unit, "")
	x.Import(erin.unit, said)
	under(erin, "Row17mult")

	under(sites, sites.policy)
	under(x.assignTo(sites, "Row17site"), "Sites-Row17site")
}

func TestChecklist18LazyRewrapOnAccessAndNothingIsPlain(t *testing.T) {
	x := newTenancy(t, node.Options{})
	bob := stores // the tenant's policy, and a mailbox under it
	bob.PolicyKind, bob.unit = api.MailboxPolicy, underTenant
	for _, k := range []kind{mailboxes, bob} {
		x.SetState(k.unit, api.Inactive)
		x.Node.Upkeep.Wait()
		before := x.protection(k)
		x.newKey(k.vaults[0], "Key001")
		x.Refresh(k.policy, api.DepthPolicy)
		x.FinishRoll(k.policy)
		if now := x.protection(k); now.DataEncryptionPolicyID != before.DataEncryptionPolicyID || now.Current {
			t.Errorf("%s, not accessed: %+v, before the roll %+v", k.unit, now, before)
		}
		x.wantReadable(k, "an inactive mailbox")
		x.Node.Upkeep.Wait()
		if now := x.protection(k); now.DataEncryptionPolicyID != x.show(k.policy).Revision || !now.Current {
			t.Errorf("%s, accessed: %+v", k.unit, now)
		}
	}
	// A mailbox that would be moved in order to be encrypted is encrypted already.
	before := x.protection(mailboxes)
	if got := x.scriptValue("(New-MoveRequest alice@contoso.com).Status"); got != "Completed" || x.protection(mailboxes) != before || !before.IsEncrypted {
		t.Errorf("a move: %s, %+v, before %+v", got, x.protection(mailboxes), before)
	}
	// Sites move in the background, accessed or not.
	version := x.newKey(sites.vaults[0], "Key001")
	x.Script(fmt.Sprintf("Update-SPODataEncryptionPolicy -KeyVaultName %s -KeyName Key001 -KeyVersion %s -KeyType Primary", sites.vaults[0], version))
	x.FinishRoll(sites.policy)
	if now := x.protection(sites); now.DataEncryptionPolicyID != x.show(sites.policy).Revision || !now.Current {
		t.Errorf("a site: %+v", now)
	}
}

// update puts a key of the site policy on a version of a key.
func update(vault, key, version, which string) string {
	return fmt.Sprintf("Update-SPODataEncryptionPolicy -KeyVaultName %s -KeyName %s -KeyVersion %s -KeyType %s", vault, key, version, which)
}

func TestChecklist19VerifyByIsEncryptedAndDataEncryptionPolicyID(t *testing.T) {
	x := newTenancy(t, node.Options{})
	for _, c := range []struct {
		kind
		shown, resolve string
	}{
		{mailboxes, "Get-MailboxStatistics " + mailboxes.unit, "Get-DataEncryptionPolicy"},
		{stores, "Get-MailboxStatistics " + underTenant, "Get-M365DataAtRestEncryptionPolicy"},
		{sites, "Get-SPOSite " + sites.unit, ""},
	} {
		ask := func() (encrypted, id string) {
			t.Helper()
			got := strings.Fields(x.Script(fmt.Sprintf("$s = %s; $s.IsEncrypted; $s.DataEncryptionPolicyID", c.shown)))
			if len(got) != 2 {
				t.Fatalf("%s shows %q", c.shown, got)
			}
			return got[0], got[1]
		}
		encrypted, before := ask()
		if encrypted != "True" || before != x.show(c.policy).Revision || before != x.protection(c.kind).DataEncryptionPolicyID {
			t.Errorf("%s: IsEncrypted %s, under %s", c.shown, encrypted, before)
		}
		version := x.newKey(c.vaults[0], "Key001")
		if c.PolicyKind == api.SitePolicy {
			x.Script(update(c.vaults[0], "Key001", version, "Primary"))
		} else {
			x.Script(fmt.Sprintf("Set-%s %s -Refresh", c.noun(), c.policy))
		}
		x.FinishRoll(c.policy)
		encrypted, after := ask()
		if encrypted != "True" || after == before || after != x.show(c.policy).Revision {
			t.Errorf("%s after a roll: IsEncrypted %s, under %s, before %s", c.shown, encrypted, after, before)
		}
		for _, id := range []string{before, after} { // that of an older revision too
			if got := x.show(id).Name; got != c.policy {
				t.Errorf("%s is of policy %s", id, got)
			}
			if c.PolicyKind != api.SitePolicy {
				if got := x.scriptValue(fmt.Sprintf("(%s %s).Name", c.resolve, id)); got != c.policy {
					t.Errorf("%s %s shows %s", c.resolve, id, got)
				}
			}
		}
	}
}

func TestChecklist20VerifyByStatesPercentAndPerSiteStatus(t *testing.T) {
	x := newTenancy(t, node.Options{Idle: true}) // no roll gets on
	var geo api.CreateGeoInput
	geo.Body.Name, geo.Body.Hosts = "Row20", []string{"row20.sharepoint.com"}
	if _, err := x.Client.CreateGeo(t.Context(), geo); err != nil {
		t.Fatal(err)
	}
	const there = "https://row20.sharepoint.com/sites/new"
	x.Site(there)
	states := func(when string, want ...string) {
		t.Helper()
		lines := []string{
			"$p = Get-SPODataEncryptionPolicy https://row20-admin.sharepoint.com; $p.State; $p.PercentComplete",
			"$p = Get-SPODataEncryptionPolicy; $p.State; $p.PercentComplete",
			"$p = Get-SPOSiteDataEncryptionPolicy " + sites.unit + "; $p.State; $p.PercentComplete",
			"$p = Get-DataEncryptionPolicy USA_mailboxes; $p.State; $p.PercentComplete",
			"$p = Get-M365DataAtRestEncryptionPolicy Contoso_Global; $p.State; $p.PercentComplete",
		}
		for i, line := range lines {
			if got := strings.Join(strings.Fields(x.Script(line)), " "); got != want[i] {
				t.Errorf("%s: %s gives %q, want %q", when, line, got, want[i])
			}
		}
	}
	states("at first", "Unregistered 0", "Registered 100", "Registered 100", "Registered 100", "Registered 100")
	at := func(vault string) string {
		return x.uri(vault, "Key001") + "/" + x.newest(x.uri(vault, "Key001")).Version
	}
	x.Script(fmt.Sprintf("Register-SPODataEncryptionPolicy -Identity https://row20-admin.sharepoint.com -PrimaryKeyVaultUri %s -SecondaryKeyVaultUri %s", at(sites.vaults[0]), at(sites.vaults[1])),
		update(sites.vaults[0], "Key001", x.newKey(sites.vaults[0], "Key001"), "Primary"))
	for _, k := range versioned {
		x.newKey(k.vaults[0], "Key001")
		x.Script(fmt.Sprintf("Set-%s %s -Refresh", k.noun(), k.policy))
	}
	states("under way", "Registering 0", "Rolling 0", "Rolling 0", "Rolling 0", "Rolling 0")
	if got := x.scriptValue("(Get-SPOSiteDataEncryptionPolicy " + there + ").State"); got != "Registering" {
		t.Errorf("the new geo's site is %s", got)
	}
	x.Restart(func(o *node.Options) { o.Idle = false })
	x.waitForRolls()
	states("done", "Registered 100", "Registered 100", "Registered 100", "Registered 100", "Registered 100")
	if got := x.scriptValue("(Get-SPOSiteDataEncryptionPolicy " + there + ").State"); got != "Registered" {
		t.Errorf("the new geo's site is %s", got)
	}
}

package vaults_test

import (
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/cmdlet"
	"keyroll/internal/cmdlet/vaults"
)

const (
	firstSubscription  = "aaaaaaaa-0000-4000-8000-000000000001"
	secondSubscription = "bbbbbbbb-0000-4000-8000-000000000002"
)

func mustMake(t *testing.T, c *vaults.Client, v cmdlet.Vault) cmdlet.Vault {
	t.Helper()
	v.ResourceGroup, v.Location, v.SKU = "rg", "westus", "premium"
	made, err := c.CreateVault(ctx, v)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestVaultsOfAllSubscriptionsAreListedAndFound(t *testing.T) {
	c := contoso(t)
	made := mustMake(t, c, cmdlet.Vault{Name: "one", Subscription: strings.ToUpper(firstSubscription), RetentionDays: 7})
	if made.Subscription != firstSubscription || made.RetentionDays != 7 {
		t.Errorf("made %+v", made)
	}
	mustMake(t, c, cmdlet.Vault{Name: "two", Subscription: secondSubscription})
	mustMake(t, c, cmdlet.Vault{Name: "three"})
	all, err := c.ListVaults(ctx)
	if err != nil || len(all) != 3 || all[0].Name != "three" || all[1].Subscription != firstSubscription || all[2].Subscription != secondSubscription {
		t.Errorf("%+v, %v", all, err)
	}
	_, err = c.CreateVault(ctx, cmdlet.Vault{Name: "one", Subscription: secondSubscription, ResourceGroup: "rg", Location: "westus", SKU: "premium"})
	refused(t, err, api.AlreadyExists)
	_, err = c.CreateVault(ctx, cmdlet.Vault{Name: "four", Subscription: "mine", ResourceGroup: "rg", Location: "westus", SKU: "premium"})
	refused(t, err, api.InvalidArgument, `"mine" is not a GUID`)
}

func TestVaultIsProtectedDeletedRecoveredAndPurged(t *testing.T) {
	c := contoso(t)
	mustMake(t, c, cmdlet.Vault{Name: "loose", Subscription: firstSubscription})
	mustMake(t, c, cmdlet.Vault{Name: "held", Subscription: secondSubscription})
	if v, err := c.ProtectVault(ctx, "HELD"); err != nil || !v.PurgeProtection || v.SKU != "premium" {
		t.Errorf("protected %+v, %v", v, err)
	}
	for _, name := range []string{"loose", "held"} {
		if err := c.RemoveVault(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := c.ListVaults(ctx); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	deleted, err := c.ListDeletedVaults(ctx)
	if err != nil || len(deleted) != 2 {
		t.Fatalf("%+v, %v", deleted, err)
	}
	for _, v := range deleted {
		if v.Deleted == nil || v.ScheduledPurge == nil || v.ResourceGroup != "rg" || v.Location != "westus" || v.PurgeProtection != (v.Name == "held") {
			t.Errorf("deleted %+v", v)
		}
	}
	refused(t, c.PurgeVault(ctx, "held"), api.Conflict, "purge protection")
	if back, err := c.RecoverVault(ctx, "Held"); err != nil || back.Name != "held" || back.Subscription != secondSubscription || back.SKU != "premium" {
		t.Errorf("recovered %+v, %v", back, err)
	}
	if err := c.PurgeVault(ctx, "loose"); err != nil {
		t.Fatal(err)
	}
	_, err = c.RecoverVault(ctx, "loose")
	refused(t, err, api.NotFound, `deleted vault "loose" does not exist`)
	refused(t, c.RemoveVault(ctx, "loose"), api.NotFound)
	_, err = c.ProtectVault(ctx, "loose")
	refused(t, err, api.NotFound)
}

func TestDeletedKeysAreShownAndPurged(t *testing.T) {
	c := contoso(t)
	mustMake(t, c, cmdlet.Vault{Name: "loose"})
	mustMake(t, c, cmdlet.Vault{Name: "held", PurgeProtection: true})
	for _, vault := range []string{"loose", "held"} {
		if _, err := c.CreateKey(ctx, vault, "k", cmdlet.KeySpec{Type: "EC"}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.RemoveKey(ctx, vault, "k"); err != nil {
			t.Fatal(err)
		}
		all, err := c.ListDeletedKeys(ctx, vault)
		if err != nil || len(all) != 1 || all[0].Name != "k" || all[0].Deleted == nil || all[0].ScheduledPurge == nil {
			t.Errorf("%+v, %v", all, err)
		}
		if k, err := c.ShowDeletedKey(ctx, vault, "k"); err != nil || k.Curve != "P-256" || k.Deleted == nil || k.ScheduledPurge == nil {
			t.Errorf("%+v, %v", k, err)
		}
	}
	if err := c.PurgeKey(ctx, "loose", "k"); err != nil {
		t.Fatal(err)
	}
	refused(t, c.PurgeKey(ctx, "held", "k"), api.Forbidden, "purge protection")
	_, err := c.ShowDeletedKey(ctx, "loose", "k")
	refused(t, err, api.NotFound)
}

func TestPersonsAreShownByTheirNames(t *testing.T) {
	c := contoso(t)
	mustMake(t, c, cmdlet.Vault{Name: "one"})
	const alice = "alice@contoso.com"
	if err := c.SetAccess(ctx, "one", cmdlet.Access{Name: alice, Keys: []string{"create", "get"}}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetAccess(ctx, "one", cmdlet.Access{Principal: exchange, Keys: []string{"get"}}); err != nil {
		t.Fatal(err)
	}
	shown := func() map[string]string {
		v, err := c.ShowVault(ctx, "one")
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]string{}
		for _, a := range v.Access {
			names[a.Name] = strings.Join(a.Keys, " ")
		}
		return names
	}
	if got := shown(); len(got) != 3 || got[alice] != "get create" || got["Office 365 Exchange Online"] != "get" || got["admin"] != "all" {
		t.Errorf("%v", got)
	}
	if err := c.SetAccess(ctx, "one", cmdlet.Access{Name: "Alice@contoso.com"}); err != nil {
		t.Fatal(err)
	}
	if got := shown(); len(got) != 2 {
		t.Errorf("%v", got)
	}
	refused(t, c.SetAccess(ctx, "one", cmdlet.Access{Name: "alice", Keys: []string{"get"}}), api.InvalidArgument, "neither a GUID nor a user principal name")
}

func TestSubscriptionIsRegistered(t *testing.T) {
	c := contoso(t)
	want := cmdlet.Feature{Namespace: "Microsoft.Resources", Name: "mandatoryRetentionPeriodEnabled", State: "NotRegistered"}
	if f, err := c.ShowFeature(ctx, firstSubscription, "microsoft.resources", "MandatoryRetentionPeriodEnabled"); err != nil || f != want {
		t.Errorf("%+v, %v", f, err)
	}
	want.State = "Registered"
	if f, err := c.RegisterFeature(ctx, firstSubscription, "Microsoft.Resources", "mandatoryRetentionPeriodEnabled"); err != nil || f != want {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err := c.ShowFeature(ctx, firstSubscription, "Microsoft.Resources", "mandatoryRetentionPeriodEnabled"); err != nil || f != want {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err := c.ShowFeature(ctx, "", "Microsoft.Resources", "mandatoryRetentionPeriodEnabled"); err != nil || f.State != "NotRegistered" {
		t.Errorf("the default subscription: %+v, %v", f, err)
	}
	if state, err := c.RegisterProvider(ctx, firstSubscription, "Microsoft.KeyVault"); err != nil || state != "Registered" {
		t.Errorf("%s, %v", state, err)
	}
	_, err := c.RegisterFeature(ctx, firstSubscription, "Microsoft.Resources", "a/../b")
	refused(t, err, api.NotFound, "does not exist")
	mustMake(t, c, cmdlet.Vault{Name: "one", Subscription: firstSubscription, PurgeProtection: true})
	if k, err := c.CreateKey(ctx, "one", "k", cmdlet.KeySpec{Type: "EC"}); err != nil || k.RecoveryLevel != "Recoverable+ProtectedSubscription" {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestKeyIsImported(t *testing.T) {
	c := contoso(t)
	mustMake(t, c, cmdlet.Vault{Name: "one"})
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"RSA", "RSA-HSM"} {
		k, err := c.ImportKey(ctx, "one", "k", private, cmdlet.KeySpec{Type: kind, Operations: []string{"wrapKey", "unwrapKey"}})
		if err != nil || k.Type != kind || k.Size != 2048 || len(k.Operations) != 2 {
			t.Errorf("%s: %+v, %v", kind, k, err)
		}
	}
	if all, err := c.ListKeyVersions(ctx, "one", "k"); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
}

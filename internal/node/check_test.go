package node_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/cmdlet"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

const (
	exchangeID     = "00000002-0000-0ff1-ce00-000000000000"
	firstContract  = "aaaaaaaa-0000-4000-8000-000000000001"
	secondContract = "bbbbbbbb-0000-4000-8000-000000000002"
)

// contract is a vault with a key, made as the documentation requires: in a subscription
// of its own that cannot be cancelled early.
type contract struct {
	*nodetest.World
	t     *testing.T
	vault cmdlet.Vault
	spec  cmdlet.KeySpec
	grant []string
}

func validVault(t *testing.T, w *nodetest.World, name string) contract {
	c := contract{World: w, t: t, vault: cmdlet.Vault{Name: name, Subscription: firstContract, ResourceGroup: "rg", Location: "eastus", SKU: "premium", PurgeProtection: true},
		spec: cmdlet.KeySpec{Type: "RSA", Operations: []string{"wrapKey", "unwrapKey"}}, grant: []string{"get", "wrapKey", "unwrapKey"}}
	if strings.HasSuffix(name, "-B") {
		c.vault.Subscription, c.vault.Location = secondContract, "westus"
	}
	return c
}

func (c contract) create() {
	c.t.Helper()
	ctx := c.t.Context()
	if _, err := c.Vaults().CreateVault(ctx, c.vault); err != nil {
		c.t.Fatal(err)
	}
	if c.grant != nil {
		if err := c.Vaults().SetAccess(ctx, c.vault.Name, cmdlet.Access{Principal: exchangeID, Keys: c.grant}); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := c.Vaults().CreateKey(ctx, c.vault.Name, "key", c.spec); err != nil {
		c.t.Fatal(err)
	}
}

func create(w *nodetest.World, t *testing.T, name, a, b string) (api.Policy, error) {
	var in api.CreatePolicyInput
	in.Body.Name = name
	for _, v := range []string{a, b} {
		in.Body.Keys = append(in.Body.Keys, fmt.Sprintf("https://%s.%s/keys/key", v, w.Info.VaultDomain))
	}
	return w.Client.CreatePolicy(t.Context(), in)
}

// policyNames lists the policies.
func policyNames(w *nodetest.World, t *testing.T) (all []string) {
	t.Helper()
	list, err := w.Client.ListPolicies(t.Context(), api.ListInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		all = append(all, p.Name+" "+p.Revision)
	}
	return all
}

func TestChecksOfKeysUseVaultsAndTheirManagement(t *testing.T) {
	t.Parallel()
	w := nodetest.Start(t, node.Options{})
	soon := time.Now().Add(time.Hour)
	no := false
	rows := []struct {
		name   string
		change func(a, b *contract)
		warns  bool
		code   api.Code
		says   string
		hint   string
	}{
		{"EC", func(_, b *contract) { b.spec = cmdlet.KeySpec{Type: "EC"} }, false, api.KeyUnusable, "is of type EC", "Add-AzKeyVaultKey -VaultName EC-B"},
		{"off", func(_, b *contract) { b.spec.Enabled = &no }, false, api.KeyUnusable, "is disabled", "Update-AzKeyVaultKey -VaultName off-B -Name key -Version"},
		{"early", func(_, b *contract) { b.spec.NotBefore = &soon }, false, api.KeyUnusable, "is not valid before", "-NotBefore (Get-Date)"},
		{"ends", func(_, b *contract) { b.spec.Expires = &soon }, false, api.KeyUnusable, "a customer key has no expiry", `-Expires (Get-Date -Date "12/31/9999")`},
		{"nowrap", func(_, b *contract) { b.spec.Operations = []string{"unwrapKey"} }, false, api.KeyUnusable, "does not allow the operation wrapKey", "-KeyOps wrapKey,unwrapKey"},
		{"nounwrap", func(_, b *contract) { b.spec.Operations = []string{"wrapKey"} }, false, api.KeyUnusable, "does not allow the operation unwrapKey", "-KeyOps wrapKey,unwrapKey"},
		{"purge", func(_, b *contract) { b.vault.PurgeProtection = false }, false, api.KeyUnusable, "its vault has no purge protection",
			"Update-AzKeyVault -VaultName purge-B -ResourceGroupName rg -EnablePurgeProtection"},
		{"locked", func(_, b *contract) { b.grant = nil }, false, api.VaultDenied, "the vault refused the service (403)", "Set-AzKeyVaultAccessPolicy -VaultName locked-B"},
		{"less", func(_, b *contract) { b.grant = []string{"get", "wrapKey"} }, false, api.VaultDenied, exchangeID + ", which lacks: unwrapKey",
			"Set-AzKeyVaultAccessPolicy -VaultName less-B -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName " + exchangeID},
		{"more", func(_, b *contract) { b.grant = append(b.grant, "list", "purge") }, true, api.KeyUnusable, exchangeID + ", which has more than it needs: list, purge",
			"Set-AzKeyVaultAccessPolicy -VaultName more-B -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName " + exchangeID},
		{"contract", func(_, b *contract) { b.vault.Subscription = firstContract }, true, api.KeyUnusable, "are both in subscription " + firstContract, "New-AzKeyVault"},
		{"region", func(_, b *contract) { b.vault.Location = "East US" }, true, api.KeyUnusable, "are both in region eastus", "New-AzKeyVault"},
	}
	for _, row := range rows {
		a, b := validVault(t, w, row.name+"-A"), validVault(t, w, row.name+"-B")
		row.change(&a, &b)
		a.create()
		b.create()
	}
	validVault(t, w, "good-A").create()
	validVault(t, w, "good-B").create()

	protectSubscriptions(t, w)

	for _, strict := range []bool{true, false} {
		w.Restart(func(o *node.Options) { o.StrictKeyChecks = strict })
		for _, row := range rows {
			before := policyNames(w, t)
			p, err := create(w, t, fmt.Sprintf("%s %t", row.name, strict), row.name+"-A", row.name+"-B")
			if row.warns && !strict {
				if err != nil || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], row.says) || !strings.Contains(p.Warnings[0], row.hint) {
					t.Errorf("%s: %q, %v", row.name, p.Warnings, err)
				}
				continue
			}
			var problem *api.Problem
			if !errors.As(err, &problem) || problem.Code != row.code || !strings.Contains(problem.Detail, row.says) || !strings.Contains(problem.Hint, row.hint) {
				t.Errorf("%s, strict %t: %+v", row.name, strict, err)
			}
			if after := policyNames(w, t); !slices.Equal(before, after) {
				t.Errorf("%s: the refusal left %v", row.name, after)
			}
		}
		if p, err := create(w, t, fmt.Sprintf("good %t", strict), "good-A", "good-B"); err != nil || len(p.Warnings) != 0 {
			t.Errorf("good keys: %q, %v", p.Warnings, err)
		}
	}

	// A key that goes bad is refused at a refresh as well.
	if _, err := w.Vaults().CreateKey(t.Context(), "good-A", "key", cmdlet.KeySpec{Type: "EC"}); err != nil {
		t.Fatal(err)
	}
	before := policyNames(w, t)
	var problem *api.Problem
	_, err := w.Client.RefreshPolicy(t.Context(), api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: "good false"}})
	if !errors.As(err, &problem) || problem.Code != api.KeyUnusable || !strings.Contains(problem.Detail, "is of type EC") {
		t.Errorf("refresh: %v", err)
	}
	if after := policyNames(w, t); !slices.Equal(before, after) {
		t.Errorf("the refused refresh left %v", after)
	}
}

// protectSubscriptions registers both subscriptions, so that they cannot end while
// keys in them may be needed.
func protectSubscriptions(t *testing.T, w *nodetest.World) {
	t.Helper()
	for _, s := range []string{firstContract, secondContract} {
		f, err := w.Vaults().RegisterFeature(t.Context(), s, "Microsoft.Resources", "mandatoryRetentionPeriodEnabled")
		if err != nil || f.State != "Registered" {
			t.Fatalf("%+v, %v", f, err)
		}
	}
}

func TestStrictRecoveryLevelRequiresAProtectedSubscription(t *testing.T) {
	w := nodetest.Start(t, node.Options{StrictKeyChecks: true})
	for _, name := range []string{"strict-A", "strict-B"} {
		validVault(t, w, name).create()
	}
	_, err := create(w, t, "p", "strict-A", "strict-B")
	var problem *api.Problem
	if !errors.As(err, &problem) || problem.Code != api.KeyUnusable || !strings.Contains(problem.Detail, `recovery level "Recoverable"`) ||
		problem.Hint != "Set-AzContext -SubscriptionId "+firstContract+"; Register-AzProviderFeature -FeatureName mandatoryRetentionPeriodEnabled -ProviderNamespace Microsoft.Resources" {
		t.Fatalf("%+v", err)
	}
	protectSubscriptions(t, w)
	if p, err := create(w, t, "p", "strict-A", "strict-B"); err != nil || len(p.Warnings) != 0 {
		t.Errorf("%q, %v", p.Warnings, err)
	}
}

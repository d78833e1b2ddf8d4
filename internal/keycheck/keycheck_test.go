package keycheck_test

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keycheck"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/rootkey"
	"keyroll/internal/store/storetest"
)

// entry is a row of the table of checks with the expected result.
type entry struct {
	check   string
	key     func(*rootkey.KeyInfo)   // of both vaults
	vault   func(*rootkey.VaultInfo) // of vault B
	strict, // checked only where checks are strict
	warns bool // accepted with a warning, unless checks are strict
	code api.Code
	says string
	hint string
}

const update = "Update-AzKeyVaultKey -VaultName A -Name k -Version "

func entries(now time.Time) []entry {
	at := func(d time.Duration) *time.Time { t := now.Add(d); return &t }
	day := func(y int, m time.Month, d int) *time.Time { t := time.Date(y, m, d, 12, 0, 0, 0, time.UTC); return &t }
	grant := "Set-AzKeyVaultAccessPolicy -VaultName B -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName exchange"
	protect := "Update-AzKeyVault -VaultName B -ResourceGroupName rg -EnablePurgeProtection"
	return []entry{
		{check: "type", key: func(k *rootkey.KeyInfo) { k.Type, k.Bits = "EC", 0 }, code: api.KeyUnusable,
			says: "is of type EC; a customer key is an RSA key", hint: "Add-AzKeyVaultKey -VaultName A -Name NAME -Destination HSM -KeyOps wrapKey,unwrapKey"},
		{check: "size", key: func(k *rootkey.KeyInfo) { k.Bits = 2047 }, code: api.KeyUnusable, says: "has 2047 bits; a customer key has 2048 or more", hint: "Add-AzKeyVaultKey"},
		{check: "public key", key: func(k *rootkey.KeyInfo) { k.Public = &rsa.PublicKey{N: k.Public.N, E: 3} }, code: api.KeyUnusable,
			says: "has a public exponent that is not an odd number from 65537", hint: "Add-AzKeyVaultKey -VaultName A -Name NAME"},
		{check: "enabled", key: func(k *rootkey.KeyInfo) { k.Enabled = false }, code: api.KeyUnusable, says: "is disabled", hint: update},
		{check: "not before", key: func(k *rootkey.KeyInfo) { k.NotBefore = at(time.Millisecond) }, code: api.KeyUnusable, says: "is not valid before 2027-01-15", hint: "-NotBefore (Get-Date)"},
		{check: "expiry", key: func(k *rootkey.KeyInfo) { k.Expires = at(0) }, code: api.KeyUnusable, says: "expired at 2027-01-15", hint: `-Expires (Get-Date -Date "12/31/9999")`},
		{check: "expiry", key: func(k *rootkey.KeyInfo) { k.Expires = day(9999, 12, 29) }, code: api.KeyUnusable,
			says: "expires at 9999-12-29 12:00:00Z; a customer key has no expiry, or 9999-12-31", hint: `-Expires (Get-Date -Date "12/31/9999")`},
		{check: "wrapKey", key: func(k *rootkey.KeyInfo) { k.Ops = []string{"unwrapKey", "sign"} }, code: api.KeyUnusable,
			says: "does not allow the operation wrapKey", hint: "-KeyOps wrapKey,unwrapKey"},
		{check: "unwrapKey", key: func(k *rootkey.KeyInfo) { k.Ops = []string{"wrapKey"} }, code: api.KeyUnusable,
			says: "does not allow the operation unwrapKey", hint: "-KeyOps wrapKey,unwrapKey"},
		{check: "vault known", vault: func(v *rootkey.VaultInfo) { v.Principal, v.Permissions = "", nil }, warns: true, code: api.KeyUnusable,
			says: "could not be checked for permissions", hint: "Get-AzKeyVault -VaultName B"},
		{check: "soft delete", vault: func(v *rootkey.VaultInfo) { v.SoftDelete = false }, code: api.KeyUnusable,
			says: "its vault has no soft delete", hint: "Update-AzKeyVault -VaultName B -ResourceGroupName rg -EnableSoftDelete"},
		{check: "purge protection", vault: func(v *rootkey.VaultInfo) { v.PurgeProtection = false }, code: api.KeyUnusable, says: "its vault has no purge protection", hint: protect},
		{check: "recovery level", key: func(k *rootkey.KeyInfo) { k.RecoveryLevel = "CustomizedRecoverable+Purgeable" }, code: api.KeyUnusable,
			says: `has the recovery level "CustomizedRecoverable+Purgeable"; a customer key cannot be purged`, hint: "-EnablePurgeProtection"},
		{check: "recovery level", key: func(k *rootkey.KeyInfo) { k.RecoveryLevel = "" }, code: api.KeyUnusable, says: `has the recovery level ""`, hint: "-EnablePurgeProtection"},
		{check: "recovery level, strict", strict: true, key: func(k *rootkey.KeyInfo) { k.RecoveryLevel = "CustomizedRecoverable+ProtectedSubscription" }, code: api.KeyUnusable,
			says: "this keyroll was started to require Recoverable+ProtectedSubscription",
			hint: "Set-AzContext -SubscriptionId of a; Register-AzProviderFeature -FeatureName mandatoryRetentionPeriodEnabled -ProviderNamespace Microsoft.Resources"},
		{check: "permissions", vault: func(v *rootkey.VaultInfo) { v.Permissions = []string{"get", "list", "UnwrapKey"} }, code: api.VaultDenied,
			says: "is used by service principal exchange, which lacks: wrapKey", hint: grant},
		{check: "permissions", vault: func(v *rootkey.VaultInfo) { v.Permissions = nil }, code: api.VaultDenied, says: "lacks: get, wrapKey, unwrapKey", hint: grant},
		{check: "permissions, no more", vault: func(v *rootkey.VaultInfo) { v.Permissions = append(v.Permissions, "delete", "purge") }, warns: true, code: api.KeyUnusable,
			says: "which has more than it needs: delete, purge", hint: grant},
		{check: "permissions, no more", vault: func(v *rootkey.VaultInfo) { v.Permissions = []string{"all"} }, warns: true, code: api.KeyUnusable, says: "has more than it needs: all", hint: grant},
		{check: "two subscriptions", vault: func(v *rootkey.VaultInfo) { v.Subscription = "OF A" }, warns: true, code: api.KeyUnusable,
			says: `vaults "A" and "B" are both in subscription of a`, hint: "New-AzKeyVault -VaultName NAME"},
		{check: "two regions", vault: func(v *rootkey.VaultInfo) { v.Location = "near a" }, warns: true, code: api.KeyUnusable,
			says: `vaults "A" and "B" are both in region near a`, hint: "New-AzKeyVault -VaultName NAME"},
	}
}

// arrange sets up the vaults for the row.
func (e entry) arrange(w *policytest.World) {
	w.Vaults.TellsOfKey = func(k *rootkey.KeyInfo) {
		if e.strict {
			k.RecoveryLevel = "Recoverable+ProtectedSubscription"
		}
		if e.key != nil {
			e.key(k)
		}
	}
	w.Vaults.TellsOfVault = func(vault string, v *rootkey.VaultInfo) error {
		if e.vault != nil && vault == "B" {
			e.vault(v)
		}
		return nil
	}
}

func (e entry) refused(t *testing.T, act string, err error) {
	t.Helper()
	code, detail, hint := fail.Public(err)
	if code != e.code || !strings.Contains(detail, e.says) || !strings.Contains(hint, e.hint) {
		t.Errorf("%s: %s %q, hint %q; want %s %q, hint %q", act, code, detail, hint, e.code, e.says, e.hint)
	}
}

func (e entry) warned(t *testing.T, act string, warnings []string, err error) {
	t.Helper()
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], e.says) || !strings.Contains(warnings[0], e.hint) {
		t.Errorf("%s: %q, %v; want %q and %q", act, warnings, err, e.says, e.hint)
	}
}

func TestEachCheckRefusesOrWarnsWhereverKeysEnterAPolicy(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	// TestKeysOfAPolicyAreCheckedBeforeAnythingIsWritten, TestKeysInAzureAreCheckedAsFarAsTheirVaultsShow
	tested := []string{"two vaults", "management plane"}
	for i, e := range entries(w.Clock.Now()) {
		tested = append(tested, e.check)
		t.Run(fmt.Sprintf("%s %d", e.check, i), func(t *testing.T) {
			w := policytest.New(t, storetest.One(t))
			sites := w.Neighbour()
			key := func(vault string) envelope.KeyVersion {
				kv := w.Vaults.Add(vault, "k")
				kv.Version = ""
				return kv
			}
			mail := policy.Definition{Kind: api.MailboxPolicy, Name: "mail", Primary: key("A"), Secondary: key("B")}
			pol, err := w.Create(mail)
			w.Must(err)
			site, err := w.Create(policy.Definition{Kind: api.SitePolicy, Name: "Sites",
				Primary: w.Vaults.Add("A", "s"), Secondary: w.Vaults.Add("B", "s")})
			w.Must(err)
			if len(pol.Warnings)+len(site.Warnings) != 0 {
				t.Fatalf("warnings beforehand: %q %q", pol.Warnings, site.Warnings)
			}
			key("A")
			newer := w.Vaults.Add("A", "s")
			e.arrange(w)
			acts := map[string]func() ([]string, error){
				"create": func() ([]string, error) {
					again := mail
					again.Name = "another"
					made, err := w.Create(again)
					return made.Warnings, err
				},
				"check of a definition": func() ([]string, error) {
					again := mail
					again.Name = "a third"
					return w.Policies.CheckCreate(w.Ctx, w.Tenant, again)
				},
				"check of keys": func() ([]string, error) {
					refusals, warnings, err := w.Policies.CheckKeys(w.Ctx, w.Tenant, mail.Kind, mail.Primary, mail.Secondary)
					if err == nil && len(refusals) > 0 {
						err = refusals[0]
					}
					return warnings, err
				},
				"refresh": func() ([]string, error) {
					c, err := w.Change(pol.Policy, policy.Request{Depth: api.DepthPolicy})
					return c.Warnings, err
				},
				"update": func() ([]string, error) {
					c, err := sites.Change(site.Policy, policy.Request{Act: policy.UpdatePrimary, Primary: newer, Depth: api.DepthPolicy})
					return c.Warnings, err
				},
			}
			for _, strict := range []bool{true, false} {
				if e.strict && !strict {
					continue
				}
				for _, of := range []*policytest.World{w, sites} {
					of.Configure(func(c *policy.Config) { c.StrictKeyChecks = strict })
				}
				for act, do := range acts {
					want := e
					if act == "update" { // another key, used by another principal
						of := strings.NewReplacer("exchange", "sharepoint", "-Name k ", "-Name s ")
						want.says, want.hint = of.Replace(e.says), of.Replace(e.hint)
					}
					before := w.Dump()
					warnings, err := do()
					if e.warns && !strict {
						want.warned(t, act, warnings, err)
						continue
					}
					want.refused(t, act, err)
					if w.Dump() != before {
						t.Errorf("the refused %s changed something", act)
					}
				}
			}
		})
	}
	for _, name := range keycheck.Names() {
		if !slices.Contains(tested, name) {
			t.Errorf("check %q is not tested", name)
		}
	}
}

// A check of keys reports everything that is wrong at once, each thing once: for a key
// that is not an RSA key nothing else.
func TestACheckOfKeysReportsEveryProblem(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	a, b := w.Vaults.Add("A", "k"), w.Vaults.Add("B", "k")
	w.Vaults.TellsOfKey = func(k *rootkey.KeyInfo) {
		if k.KeyVersion.Vault == "A" {
			k.Type, k.Bits = "EC", 0
			return
		}
		k.Enabled, k.Ops = false, []string{"unwrapKey"}
	}
	check := func(kind api.PolicyKind, a, b envelope.KeyVersion) string {
		t.Helper()
		refusals, _, err := w.Policies.CheckKeys(w.Ctx, w.Tenant, kind, a, b)
		w.Must(err)
		var all []string
		for _, r := range refusals {
			all = append(all, r.Error())
		}
		return strings.Join(all, "|")
	}
	newest := func(kv envelope.KeyVersion) envelope.KeyVersion { kv.Version = ""; return kv }
	for _, want := range []string{`key "k" version ` + a.Version + ` in vault "A" is of type EC`, `in vault "B" is disabled`, `in vault "B" does not allow the operation wrapKey`} {
		if got := check(api.MailboxPolicy, newest(a), newest(b)); !strings.Contains(got, want) || strings.Count(got, "|") != 2 {
			t.Errorf("%s, want %s", got, want)
		}
	}
	w.Vaults.TellsOfKey = nil
	if got := check(api.MailboxPolicy, a, b); strings.Count(got, "names a version; a mailbox policy names keys without one") != 2 {
		t.Error(got)
	}
	if got := check(api.MailboxPolicy, newest(a), newest(a)); !strings.Contains(got, "two vaults") {
		t.Error(got)
	}
	for _, kv := range [][2]envelope.KeyVersion{{a, b}, {newest(a), newest(b)}} {
		if got := check(api.SitePolicy, kv[0], kv[1]); got != "" {
			t.Error(got)
		}
	}
	if got := check(api.MailboxPolicy, newest(a), envelope.KeyVersion{Vault: "B", Key: "none"}); got == "" {
		t.Error("a key that is not there is not named")
	}
}

func TestUncheckedVaultGivesAWarning(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	w.Vaults.TellsOfVault = func(vault string, _ *rootkey.VaultInfo) error {
		if vault == "A-p" {
			return errors.New("the vault refused the service (403)")
		}
		return nil
	}
	a, b := w.Vaults.Add("A-p", "k"), w.Vaults.Add("B-p", "k")
	a.Version, b.Version = "", ""
	d := policy.Definition{Kind: api.MailboxPolicy, Name: "p", Primary: a, Secondary: b}
	made, err := w.Create(d)
	if err != nil || len(made.Warnings) != 1 || !strings.Contains(made.Warnings[0], "could not be checked for subscription, region, protection and permissions: the vault refused the service (403)") {
		t.Errorf("%q, %v", made.Warnings, err)
	}
	w.Configure(func(c *policy.Config) { c.StrictKeyChecks = true })
	d.Name = "q"
	_, err = w.Create(d)
	policytest.Refuses(t, err, api.KeyUnusable)
}

func TestNoExpiryIsTheLastDayOfTheYear9999AnywhereOnEarth(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	for _, zone := range []int{-12, 0, 14} {
		w.Vaults.TellsOfKey = func(k *rootkey.KeyInfo) {
			e := time.Date(9999, 12, 31, 0, 0, 0, 0, time.FixedZone("", zone*3600))
			k.Expires = &e
		}
		if _, err := w.TryMailboxPolicy(time.FixedZone("", zone*3600).String() + string(rune('a'+zone+12))); err != nil {
			t.Errorf("zone %d: %v", zone, err)
		}
	}
}

// A vault in Azure shows no permissions of the service, and its management plane
// may be closed to it.
func TestKeysInAzureAreCheckedAsFarAsTheirVaultsShow(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	create := func(name string, strict bool) ([]string, error) {
		config := w.Config
		config.StrictKeyChecks = strict
		node := policy.New(config)
		defer node.Close()
		kv := func(vault string) envelope.KeyVersion {
			added := w.Vaults.Add("https://"+vault+"-"+name+".vault.azure.net", "k")
			added.Version = ""
			return added
		}
		made, err := w.CreateOn(node, policy.Definition{Kind: api.MailboxPolicy, Name: name, Primary: kv("a"), Secondary: kv("b")})
		return made.Warnings, err
	}
	w.Vaults.TellsOfVault = func(_ string, v *rootkey.VaultInfo) error {
		v.Principal, v.Permissions = "", nil
		return nil
	}
	for _, strict := range []bool{false, true} {
		if warnings, err := create(fmt.Sprint("reader-", strict), strict); err != nil || len(warnings) != 0 {
			t.Errorf("a Reader, strict %t: %q, %v", strict, warnings, err)
		}
	}
	w.Vaults.TellsOfVault = func(string, *rootkey.VaultInfo) error { return errors.New("AuthorizationFailed") }
	const says = "the subscription and the region of its vault, which only the management plane of Azure shows: AuthorizationFailed"
	if warnings, err := create("closed", false); err != nil || len(warnings) != 2 || !strings.Contains(warnings[0], says) || !strings.Contains(warnings[0], "-RoleDefinitionName Reader") {
		t.Errorf("%q, %v", warnings, err)
	}
	_, err := create("closed-strict", true)
	code, detail, hint := fail.Public(err)
	if code != api.KeyUnusable || !strings.Contains(detail, says) || !strings.Contains(hint, "-RoleDefinitionName Reader") {
		t.Errorf("%s %q, hint %q", code, detail, hint)
	}
}

func TestVaultOfTheAvailabilityKeysIsRefusedAsACustomerVault(t *testing.T) {
	w := policytest.New(t, storetest.One(t))
	w.Configure(func(c *policy.Config) { c.OperatorVault = "https://Operators.vault.azure.net/" })
	own, theirs := w.Vaults.Add("https://operators.vault.azure.net", "k"), w.Vaults.Add("mine", "k")
	own.Version, theirs.Version = "", ""
	for _, keys := range [][2]envelope.KeyVersion{{own, theirs}, {theirs, own}} {
		_, err := w.Create(policy.Definition{Kind: api.MailboxPolicy, Name: "p", Primary: keys[0], Secondary: keys[1]})
		policytest.Refuses(t, err, api.InvalidArgument)
		if err != nil && !strings.Contains(err.Error(), `vault "https://operators.vault.azure.net" holds the availability keys`) {
			t.Error(err)
		}
	}
	if calls := w.Vaults.Calls(); len(calls) != 0 {
		t.Errorf("vaults were asked: %v", calls)
	}
}

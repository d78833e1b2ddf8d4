package node_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/policy"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func TestChecklist01TwoRSARootsInTwoVaultsSubscriptionsAndRegions(t *testing.T) {
	x := newTenancy(t, node.Options{})
	for _, k := range kinds {
		name := "Row01" + string(k.PolicyKind[:4])
		first, second := x.uri(k.vaults[0], "Key001"), x.uri(k.vaults[1], "Key001")
		made, err := x.create(k, name+"good", first, second)
		if err != nil || len(made.Warnings) != 0 {
			t.Errorf("%s: %v, %q", name, err, made.Warnings)
		}
		near := name + "-near"
		x.newVault(k, near, 0)
		x.newKey(near, "Key001")
		made, err = x.create(k, name+"near", first, x.uri(near, "Key001"))
		if err != nil || len(made.Warnings) != 2 || !strings.Contains(made.Warnings[0], "are both in subscription "+firstSub) || !strings.Contains(made.Warnings[1], "are both in region westus") {
			t.Errorf("%s, two vaults beside each other: %v, %q", name, err, made.Warnings)
		}
		x.newKey(k.vaults[0], "Key002")
		_, err = x.create(k, name+"one", first, x.uri(k.vaults[0], "Key002"))
		refused(t, name+", one vault", err, api.InvalidArgument, "two vaults")
		for i := range k.vaults {
			x.Revoke(k.service, k.vaults[1-i])
			x.clearKeyCache()
			x.wantReadable(k, "with vault "+k.vaults[i]+" alone")
			if key := x.openedBy(k.policy); !strings.Contains(key, k.vaults[i]+".") {
				t.Errorf("%s: opened by %s, want vault %s", name, key, k.vaults[i])
			}
			x.restore(k)
		}
	}
}

func TestChecklist02StandardHSMAndManagedHSMKeys(t *testing.T) {
	x := newTenancy(t, node.Options{})
	for i, k := range kinds {
		soft, hsm, managed := fmt.Sprint("Row02-soft", i), fmt.Sprint("Row02-hsm", i), fmt.Sprint("Row02-managed", i)
		x.Script(fmt.Sprintf("New-AzKeyVault -VaultName %s -ResourceGroupName rg -Location westus -SubscriptionId %s -Sku Standard -EnablePurgeProtection", soft, firstSub))
		x.grant(k, soft, "get,wrapKey,unwrapKey")
		x.newVault(k, hsm, 1)
		x.newVault(k, managed, 0)
		for add, want := range map[string]string{"-VaultName " + soft + " -Destination Software": "RSA", "-VaultName " + hsm + " -Destination HSM": "RSA-HSM", "-HsmName " + managed + " -KeyType RSA": "RSA-HSM"} {
			if got := x.scriptValue("(Add-AzKeyVaultKey " + add + " -Name Key001 -KeyOps wrapKey,unwrapKey).KeyType"); got != want {
				t.Errorf("%s makes a key of type %s, want %s", add, got, want)
			}
		}
		for n, pair := range [][2]string{{soft, hsm}, {managed, hsm}} {
			name := fmt.Sprintf("Row02-%d-%d", i, n)
			made, err := x.create(k, name, x.uri(pair[0], "Key001"), x.uri(pair[1], "Key001"))
			if err != nil || len(made.Warnings) != 0 {
				t.Errorf("%v: %v, %q", pair, err, made.Warnings)
				continue
			}
			other := x.assignTo(k, name)
			for _, vault := range pair {
				x.Revoke(k.service, vault)
				x.clearKeyCache()
				x.wantReadable(other, "without "+vault)
				if key := x.openedBy(made.ID); strings.Contains(key, vault+".") || !strings.Contains(key, "https://Row02-") {
					t.Errorf("%v without %s: opened by %s", pair, vault, key)
				}
				x.grant(k, vault, "get,wrapKey,unwrapKey")
			}
			if p := x.protection(other); p.PolicyID != made.ID {
				t.Errorf("%v: under %+v", pair, p)
			}
		}
	}
	version := x.newKey("Row02-managed1", "Key001")
	x.Script(fmt.Sprintf("Update-SPODataEncryptionPolicy -KeyVaultName Row02-managed1 -KeyName Key001 -KeyVersion %s -KeyType Primary -KeyVaultType ManagedHSM", version))
	x.waitForRolls()
	if p := x.show(sites.policy); p.Primary.Version != version {
		t.Errorf("the site policy uses %+v", p.Primary)
	}
	x.wantReadable(sites, "with a managed HSM")
}

func TestChecklist03ServiceHasGetWrapUnwrapOnlyAndRevocable(t *testing.T) {
	x := newTenancy(t, node.Options{})
	for _, k := range kinds {
		first, second := x.uri(k.vaults[0], "Key001"), x.uri(k.vaults[1], "Key001")
		x.grant(k, k.vaults[0], "get,wrapKey,unwrapKey,purge")
		made, err := x.create(k, "Row03more"+string(k.PolicyKind[:4]), first, second)
		if err != nil || len(made.Warnings) != 1 || !strings.Contains(made.Warnings[0], k.service+", which has more than it needs: purge") {
			t.Errorf("%s, more: %v, %q", k.policy, err, made.Warnings)
		}
		x.grant(k, k.vaults[0], "get,wrapKey")
		_, err = x.create(k, "Row03less"+string(k.PolicyKind[:4]), first, second)
		refused(t, k.policy+", less", err, api.VaultDenied, "which lacks: unwrapKey")

		x.grant(k, k.vaults[0], "get,wrapKey,unwrapKey")
		x.wantReadable(k, "with just these")
		x.Revoke(k.service, k.vaults[:]...)
		x.clock.advance(policy.RevocationBound)
		x.wantRefusedRead(k, api.VaultDenied, "the bound after the revocation")
		for _, vault := range k.vaults {
			x.grant(k, vault, "get,wrapKey,unwrapKey")
		}
		x.wantReadable(k, "access given back")
	}
}

func TestChecklist04RejectsECKeysExpiryWrongRecoveryLevelAndMissingSoftDelete(t *testing.T) {
	x := newTenancy(t, node.Options{StrictKeyChecks: true})
	for i, k := range kinds {
		open, ends := fmt.Sprint("Row04-open", i), fmt.Sprint("Row04-ends", i)
		x.Script(fmt.Sprintf("New-AzKeyVault -VaultName %s -ResourceGroupName rg -Location northeurope -SubscriptionId %s -Sku Premium", open, secondSub),
			fmt.Sprintf("New-AzKeyVault -VaultName %s -ResourceGroupName rg -Location northeurope -Sku Premium -EnablePurgeProtection", ends))
		for _, vault := range []string{open, ends} {
			x.grant(k, vault, "get,wrapKey,unwrapKey")
			x.newKey(vault, "Key001")
		}
		add := fmt.Sprintf("Add-AzKeyVaultKey -VaultName %s -Destination HSM -Name ", k.vaults[1])
		x.Script(add+"curve -KeyType EC", add+"ends -KeyOps wrapKey,unwrapKey -Expires 12/31/2099", add+"never -KeyOps wrapKey,unwrapKey -Expires 12/31/9999")
		for n, c := range []struct{ what, uri, says string }{
			{"an EC key", x.uri(k.vaults[1], "curve"), "is of type EC"},
			{"a key that expires", x.uri(k.vaults[1], "ends"), "a customer key has no expiry"},
			{"a vault that can be purged", x.uri(open, "Key001"), "no purge protection"},
			{"a subscription that can end", x.uri(ends, "Key001"), `recovery level "Recoverable"`},
			{"a key that ends in 9999", x.uri(k.vaults[1], "never"), ""},
		} {
			_, err := x.create(k, fmt.Sprintf("Row04-%d-%d", i, n), x.uri(k.vaults[0], "Key001"), c.uri)
			if c.says != "" {
				refused(t, k.policy+", "+c.what, err, api.KeyUnusable, c.says)
			} else if err != nil {
				t.Errorf("%s, %s: %v", k.policy, c.what, err)
			}
		}
		// Soft delete is always on and cannot be switched off.
		off := fmt.Sprintf("$r = Get-AzResource -ResourceId (Get-AzKeyVault -VaultName %s).ResourceId; $r.Properties | Add-Member -MemberType NoteProperty -Name enableSoftDelete -Value 'False' -Force; "+
			"Set-AzResource -ResourceId $r.ResourceId -Properties $r.Properties -Force", open)
		if _, err := x.TryScript(off); err == nil {
			t.Error("soft delete was switched off")
		}
		if got := x.scriptValue(fmt.Sprintf("(Get-AzKeyVault %s).EnableSoftDelete", open)); got != "True" {
			t.Errorf("soft delete of %s: %s", open, got)
		}
	}
}

// availabilityFiles are the keys in the store of availability keys, by file name.
func (x tenancy) availabilityFiles() map[string][]byte {
	x.t.Helper()
	paths, err := filepath.Glob(filepath.Join(x.Data, "availability", "*.key"))
	if err != nil {
		x.t.Fatal(err)
	}
	keys := map[string][]byte{}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			x.t.Fatal(err)
		}
		keys[filepath.Base(path)] = content[21 : len(content)-32] // format, tenant, id and version; checksum
	}
	return keys
}

// database returns every byte of the database's files.
func (x tenancy) database() (content []byte) {
	x.t.Helper()
	if storetest.OnPostgres() {
		return x.rows()
	}
	paths, err := filepath.Glob(filepath.Join(x.Data, node.DatabaseFile+"*"))
	if err != nil || len(paths) == 0 {
		x.t.Fatalf("%v, %v", paths, err)
	}
	for _, path := range paths {
		part, err := os.ReadFile(path)
		if err != nil {
			x.t.Fatal(err)
		}
		content = append(content, part...)
	}
	return content
}

// rows returns every text and every byte string of the database's tables.
func (x tenancy) rows() (content []byte) {
	x.t.Helper()
	err := x.Node.DB.ViewOnce(x.t.Context(), func(tx *store.Tx) error {
		each := func(query string, row func(value any)) error {
			rows, err := tx.Query(x.t.Context(), query)
			if err != nil {
				return err
			}
			defer rows.Close()
			columns, err := rows.Columns()
			if err != nil {
				return err
			}
			values, into := make([]any, len(columns)), make([]any, len(columns))
			for i := range into {
				into[i] = &values[i]
			}
			for rows.Next() {
				if err := rows.Scan(into...); err != nil {
					return err
				}
				for _, value := range values {
					row(value)
				}
			}
			return rows.Err()
		}
		var tables []string
		if err := each(`SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'`, func(name any) { tables = append(tables, name.(string)) }); err != nil {
			return err
		}
		for _, table := range tables {
			err := each(`SELECT * FROM `+table, func(value any) {
				switch v := value.(type) {
				case string:
					content = append(content, v...)
				case []byte:
					content = append(content, v...)
				}
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || len(content) == 0 {
		x.t.Fatalf("%d bytes, %v", len(content), err)
	}
	return content
}

func TestChecklist05AvailabilityKeyIsGeneratedWithThePolicy(t *testing.T) {
	x := newTenancy(t, node.Options{})
	for i, k := range kinds {
		before := x.availabilityFiles()
		made, err := x.create(k, fmt.Sprint("Row05", i), x.uri(k.vaults[0], "Key001"), x.uri(k.vaults[1], "Key001"))
		if err != nil {
			t.Fatal(err)
		}
		file := fmt.Sprintf("%s-%d.key", made.AvailabilityKey, made.AvailabilityVersion)
		after := x.availabilityFiles()
		if _, old := before[file]; old || len(after[file]) != 256/8 || made.AvailabilityVersion != 1 {
			t.Errorf("%s: made %s, of %d bits", k.policy, file, 8*len(after[file]))
		}
		for other, key := range before {
			if bytes.Equal(key, after[file]) {
				t.Errorf("%s: the key is that of %s", k.policy, other)
			}
		}
		if bytes.Contains(x.database(), after[file]) {
			t.Errorf("%s: the key is in the database", k.policy)
		}
	}
}

func TestChecklist06PolicyKeyIsWrappedThreeWays(t *testing.T) {
	x := newOutsideTenancy(t, node.Options{})
	for _, k := range kinds {
		opens := func(root string) {
			t.Helper()
			x.clearKeyCache()
			x.wantReadable(k, "by its "+root+" key alone")
			if key := x.openedBy(k.policy); !strings.HasPrefix(key, root+" key") {
				t.Errorf("%s: opened by %s, want the %s key", k.policy, key, root)
			}
		}
		x.Revoke(k.service, k.vaults[1])
		opens("primary")
		x.restore(k)
		x.Revoke(k.service, k.vaults[0])
		opens("secondary")
		x.restore(k)
		if k.PolicyKind == api.SitePolicy { // only in a recovery that the customer asked for
			x.revoke(k)
			if _, err := x.Client.RecoverPolicy(t.Context(), api.PolicyInput{Policy: k.policy}); err != nil {
				t.Fatal(err)
			}
		} else {
			x.useBothKeys(k) // or the refusals before would last
			x.disconnect(k.vaults[:]...)
		}
		opens("availability")
	}
}

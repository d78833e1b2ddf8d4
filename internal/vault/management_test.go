package vault_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func TestOfficialManagementClientMakesAVault(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := newTestServer(t, db).tenant("contoso")
		made := n.createVault("Contoso-O365EX-NA-VaultA1", func(p *armkeyvault.VaultProperties) {
			p.EnablePurgeProtection = to.Ptr(true)
		})
		p := made.Properties
		if *made.Name != "Contoso-O365EX-NA-VaultA1" || *made.Type != "Microsoft.KeyVault/vaults" || *made.Location != "eastus" ||
			*p.VaultURI != n.url("Contoso-O365EX-NA-VaultA1")+"/" || *p.SKU.Name != "premium" || !*p.EnablePurgeProtection ||
			!*p.EnableSoftDelete || *p.SoftDeleteRetentionInDays != 90 || *p.TenantID != n.GUID.String() || *p.EnableRbacAuthorization {
			t.Errorf("made %+v %+v", made, p)
		}
		if a := p.AccessPolicies; len(a) != 1 || *a[0].ObjectID != n.admin.ID.String() || *a[0].Permissions.Keys[0] != "all" {
			t.Errorf("access policies %+v", a)
		}
		got, err := n.management().Get(ctx, "RG1", "contoso-o365ex-na-vaulta1", nil)
		if err != nil || *got.ID != *made.ID || !strings.Contains(*got.ID, "/resourceGroups/rg1/") {
			t.Errorf("get: %v, %v", got.Vault, err)
		}
		_, err = n.management().Get(ctx, "rg2", "Contoso-O365EX-NA-VaultA1", nil)
		refused(t, err, 404, "ResourceNotFound", "", "rg2")
	})
}

// The caller and its tenant are read in one snapshot; the operation has one transaction
// of its own.
func TestAManagementRequestNeedsTwoTransactions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		var begun atomic.Int64
		db.SetForTests(store.ForTests{Observe: func(statement string) {
			if statement == "BEGIN" {
				begun.Add(1)
			}
		}})
		n := contoso(t, db)
		vault := n.armURL("/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/contoso-A")
		for _, request := range []struct{ method, url, body string }{
			{"GET", n.server.URL + "/subscriptions?api-version=2022-12-01", ""},
			{"GET", n.armURL("/providers/Microsoft.KeyVault/vaults"), ""},
			{"GET", vault, ""},
			{"PATCH", vault, `{"tags":{"cost":"centre"}}`},
			{"PUT", n.armURL("/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/contoso-A/accessPolicies/add"), `{"properties":{"accessPolicies":[]}}`},
			{"GET", n.armURL(providerPath), ""},
			{"POST", n.armURL(providerPath + "/register"), ""},
		} {
			begun.Store(0)
			if status := n.call(request.method, request.url, request.body, nil); status != 200 || begun.Load() != 2 {
				t.Errorf("%s %s: %d, %d transactions", request.method, request.url, status, begun.Load())
			}
		}
	})
}

func TestPutOnAnExistingVaultChangesOnlyTheGivenProperties(t *testing.T) {
	n := contoso(t, sqlite(t))
	n.grant("contoso-A", access.Exchange, "get")
	again := n.createVault("contoso-a", func(p *armkeyvault.VaultProperties) {
		p.SKU.Name = to.Ptr(armkeyvault.SKUNameStandard)
		p.EnablePurgeProtection = to.Ptr(true)
	})
	if *again.Name != "contoso-A" || *again.Properties.SKU.Name != "standard" || len(again.Properties.AccessPolicies) != 2 {
		t.Errorf("again %+v", again.Properties)
	}
	patched, err := n.management().Update(ctx, "rg1", "contoso-A", armkeyvault.VaultPatchParameters{
		Tags: map[string]*string{"cost": to.Ptr("centre")},
		Properties: &armkeyvault.VaultPatchProperties{AccessPolicies: []*armkeyvault.AccessPolicyEntry{{
			TenantID: to.Ptr(n.GUID.String()), ObjectID: to.Ptr(access.SharePoint.String()),
			Permissions: &armkeyvault.Permissions{Keys: to.SliceOfPtrs[armkeyvault.KeyPermissions]("UNWRAPKEY", "get", "WrapKey")},
		}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := patched.Properties.AccessPolicies
	if len(a) != 1 || *a[0].ObjectID != access.SharePoint.String() || len(a[0].Permissions.Keys) != 3 ||
		*a[0].Permissions.Keys[2] != "unwrapKey" || *patched.Tags["cost"] != "centre" || !*patched.Properties.EnablePurgeProtection {
		t.Errorf("patched %+v", patched.Properties)
	}
	for name, change := range map[string]func(*armkeyvault.VaultProperties){
		"purge protection off": func(p *armkeyvault.VaultProperties) { p.EnablePurgeProtection = to.Ptr(false) },
		"another retention":    func(p *armkeyvault.VaultProperties) { p.SoftDeleteRetentionInDays = to.Ptr(int32(30)) },
	} {
		if _, err := n.putVault("contoso-A", change); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	_, err = n.management().BeginCreateOrUpdate(ctx, "rg2", "contoso-A", armkeyvault.VaultCreateOrUpdateParameters{
		Location: to.Ptr("eastus"), Properties: &armkeyvault.VaultProperties{TenantID: to.Ptr(n.GUID.String())},
	}, nil)
	refused(t, err, 409, "VaultAlreadyExists", "")
	_, err = n.management().BeginCreateOrUpdate(ctx, "rg1", "contoso-A", armkeyvault.VaultCreateOrUpdateParameters{
		Location: to.Ptr("westus"), Properties: &armkeyvault.VaultProperties{TenantID: to.Ptr(n.GUID.String())},
	}, nil)
	refused(t, err, 409, "InvalidResourceLocation", "")
}

func TestListsOfVaults(t *testing.T) {
	n := newTestServer(t, sqlite(t)).tenant("contoso")
	other := n.testServer.tenant("fabrikam")
	other.createVault("fabrikam-A", nil)
	n.createVault("b-vault", nil)
	n.createVault("A-vault", nil)
	poller, err := n.management().BeginCreateOrUpdate(ctx, "rg2", "c-vault", armkeyvault.VaultCreateOrUpdateParameters{
		Location: to.Ptr("East US"), Properties: &armkeyvault.VaultProperties{TenantID: to.Ptr(n.GUID.String())},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poller.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	var names []string
	for pager := n.management().NewListBySubscriptionPager(nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Value {
			names = append(names, *v.Name)
		}
	}
	if strings.Join(names, " ") != "A-vault b-vault c-vault" {
		t.Errorf("by subscription: %v", names)
	}
	page, err := n.management().NewListByResourceGroupPager("RG2", nil).NextPage(ctx)
	if err != nil || len(page.Value) != 1 || *page.Value[0].Name != "c-vault" || *page.Value[0].Location != "eastus" {
		t.Errorf("by group: %+v, %v", page.Value, err)
	}
}

func TestLongListOfVaultsIsPaged(t *testing.T) {
	n := contoso(t, sqlite(t))
	err := n.db.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150)
			INSERT INTO vault (id, tenant, name, name_folded, subscription, resource_group, location, sku, retention_days,
			purge_protection, tags, created, updated, deleted, purge_at)
			SELECT i, ?1, 'v-' || (i + 100), 'v-' || (i + 100), ?2, 'rg1', 'eastus', 'standard', 90, 0, 'null', 0, 0, 0, 0 FROM n`, n.ID, n.subscription)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	pages := 0
	for pager := n.management().NewListByResourceGroupPager("rg1", nil); pager.More(); pages++ {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Value {
			seen[*v.Name] = true
		}
	}
	if pages != 2 || len(seen) != 151 {
		t.Errorf("%d pages, %d vaults", pages, len(seen))
	}
}

func TestDeletedVaultIsRecoveredOrPurged(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := contoso(t, db)
		c := n.keys("contoso-A")
		create(t, c, "k", ec())
		n.grant("contoso-A", access.Exchange, "get")
		m := n.management()
		if _, err := m.Delete(ctx, "rg1", "contoso-A", nil); err != nil {
			t.Fatal(err)
		}
		_, err := c.GetKey(ctx, "k", "", nil)
		refused(t, err, 404, "VaultNotFound", "", "contoso-A")
		_, err = m.Get(ctx, "rg1", "contoso-A", nil)
		refused(t, err, 404, "ResourceNotFound", "")
		_, err = n.putVault("contoso-A", nil)
		refused(t, err, 409, "ConflictError", "", "recover or purge")
		page, err := m.NewListDeletedPager(nil).NextPage(ctx)
		if err != nil || len(page.Value) != 1 || *page.Value[0].Name != "contoso-A" {
			t.Errorf("deleted vaults %+v, %v", page.Value, err)
		}
		got, err := m.GetDeleted(ctx, "contoso-A", "eastus", nil)
		if err != nil || got.Properties.ScheduledPurgeDate.Sub(*got.Properties.DeletionDate) != 90*24*time.Hour ||
			!strings.HasSuffix(*got.Properties.VaultID, "/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/contoso-A") {
			t.Errorf("deleted vault %+v, %v", got.Properties, err)
		}
		back, err := n.putVault("contoso-A", func(p *armkeyvault.VaultProperties) { p.CreateMode = to.Ptr(armkeyvault.CreateModeRecover) })
		if err != nil || len(back.Properties.AccessPolicies) != 2 {
			t.Fatalf("recover: %+v, %v", back.Properties, err)
		}
		if _, err := c.GetKey(ctx, "k", "", nil); err != nil {
			t.Errorf("its key after recovery: %v", err)
		}
		if _, err := m.Delete(ctx, "rg1", "contoso-A", nil); err != nil {
			t.Fatal(err)
		}
		poller, err := m.BeginPurgeDeleted(ctx, "contoso-A", "eastus", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := poller.PollUntilDone(ctx, nil); err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"vault", "vault_key", "vault_key_version", "vault_permission"} {
			if rows := count(t, db, table); rows != 0 {
				t.Errorf("%d rows of %s are left", rows, table)
			}
		}
		n.createVault("contoso-A", nil)
		if _, err := m.Delete(ctx, "rg1", "nothing", nil); err != nil {
			t.Errorf("delete of nothing: %v", err)
		}
	})
}

func TestPurgeProtectedVaultIsDeletedOnlyAfterItsRetention(t *testing.T) {
	n := newTestServer(t, sqlite(t)).tenant("contoso")
	n.createVault("held", func(p *armkeyvault.VaultProperties) {
		p.EnablePurgeProtection, p.SoftDeleteRetentionInDays = to.Ptr(true), to.Ptr(int32(7))
	})
	create(t, n.keys("held"), "k", ec())
	if _, err := n.management().Delete(ctx, "rg1", "held", nil); err != nil {
		t.Fatal(err)
	}
	_, err := n.management().BeginPurgeDeleted(ctx, "held", "eastus", nil)
	refused(t, err, 409, "MethodNotAllowed", "", "purge protection")
	n.advance(7 * 24 * time.Hour)
	_, err = n.putVault("held", func(p *armkeyvault.VaultProperties) { p.CreateMode = to.Ptr(armkeyvault.CreateModeRecover) })
	refused(t, err, 404, "DeletedVaultNotFound", "")
	n.createVault("held", nil)
	if rows := count(t, n.db, "vault_key"); rows != 0 {
		t.Errorf("%d keys of the old vault are left", rows)
	}
}

func TestBadManagementRequestIsRefusedAndChangesNothing(t *testing.T) {
	n := contoso(t, sqlite(t))
	group := n.server.URL + "/subscriptions/" + n.subscription + "/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/"
	const version = "?api-version=2024-11-01"
	policies := func(policy string) string { return `{"properties":{"accessPolicies":[` + policy + `]}}` }
	id := access.Exchange.String()
	for _, c := range []struct {
		name, method, url, body string
		status                  int
		code, word              string
	}{
		{"no version", "GET", group + "contoso-A", "", 400, "MissingApiVersionParameter", "api-version"},
		{"no route", "POST", group + "contoso-A" + version, "", 405, "MethodNotAllowed", "it has PUT, PATCH, GET, DELETE"},
		{"nothing there", "GET", group + "contoso-A/nothing" + version, "", 404, "InvalidResourceType", "GET"},
		{"no subscription", "GET", strings.Replace(group, n.subscription, "mine", 1) + "x-1" + version, "", 400, "InvalidSubscriptionId", "mine"},
		{"short name", "PUT", group + "ab" + version, `{"location":"eastus"}`, 400, "VaultNameNotValid", "3 to 127"},
		{"name with a dot", "PUT", group + "a.b.c" + version, `{"location":"eastus"}`, 400, "VaultNameNotValid", "3 to 127"},
		{"name with a slash", "PUT", group + "a%2Fbc" + version, `{"location":"eastus"}`, 400, "VaultNameNotValid", "3 to 127"},
		{"long name", "PUT", group + strings.Repeat("a", 128) + version, `{"location":"eastus"}`, 400, "VaultNameNotValid", "3 to 127"},
		{"hyphen at the end", "PUT", group + "abc-" + version, `{"location":"eastus"}`, 400, "VaultNameNotValid", "hyphen"},
		{"bad group", "GET", strings.Replace(group, "rg1", "a%20b", 1) + "abc" + version, "", 400, "InvalidResourceGroup", "resource group"},
		{"no body", "PUT", group + "abc" + version, "", 400, "BadParameter", "empty"},
		{"no location", "PUT", group + "abc" + version, `{}`, 400, "LocationRequired", "location"},
		{"bad location", "PUT", group + "abc" + version, `{"location":"../x"}`, 400, "LocationNotAvailable", "location"},
		{"unknown property", "PUT", group + "abc" + version, `{"location":"eastus","properties":{"enablePurgeProtecton":true}}`, 400, "BadParameter", "enablePurgeProtecton"},
		{"wrong type", "PUT", group + "abc" + version, `{"location":"eastus","properties":{"enablePurgeProtection":"yes"}}`, 400, "BadParameter", "enablePurgeProtection"},
		{"another tenant", "PUT", group + "abc" + version, `{"location":"eastus","properties":{"tenantId":"` + id + `"}}`, 400, "BadParameter", "tenantId"},
		{"sku", "PUT", group + "abc" + version, `{"location":"eastus","properties":{"sku":{"family":"A","name":"gold"}}}`, 400, "BadParameter", "gold"},
		{"retention", "PUT", group + "abc" + version, `{"location":"eastus","properties":{"softDeleteRetentionInDays":6}}`, 400, "BadParameter", "7 to 90"},
		{"no soft delete", "PUT", group + "abc" + version, `{"location":"eastus","properties":{"enableSoftDelete":false}}`, 400, "BadParameter", "enableSoftDelete"},
		{"RBAC", "PUT", group + "abc" + version, `{"location":"eastus","properties":{"enableRbacAuthorization":true}}`, 400, "BadParameter", "access policies"},
		{"network rules", "PUT", group + "abc" + version, `{"location":"eastus","properties":{"networkAcls":{"defaultAction":"Deny"}}}`, 400, "BadParameter", "network"},
		{"create mode", "PUT", group + "abc" + version, `{"location":"eastus","properties":{"createMode":"x"}}`, 400, "BadParameter", "createMode"},
		{"recover of nothing", "PUT", group + "abc" + version, `{"location":"eastus","properties":{"createMode":"recover"}}`, 404, "DeletedVaultNotFound", "abc"},
		{"too many tags", "PUT", group + "abc" + version, `{"location":"eastus","tags":{"":"x"}}`, 400, "BadParameter", "tag"},
		{"policies: operation", "PUT", group + "contoso-A/accessPolicies/grant" + version, policies(""), 400, "BadParameter", "grant"},
		{"policies: neither GUID nor person", "PUT", group + "contoso-A/accessPolicies/add" + version, policies(`{"objectId":"exchange"}`), 400, "BadParameter", "exchange"},
		{"policies: unknown principal", "PUT", group + "contoso-A/accessPolicies/add" + version,
			policies(`{"objectId":"` + strings.Replace(id, "0ff1", "0ff2", 1) + `","permissions":{"keys":["get"]}}`), 400, "BadParameter", "0ff2"},
		{"policies: unknown permission", "PUT", group + "contoso-A/accessPolicies/add" + version,
			policies(`{"objectId":"` + id + `","permissions":{"keys":["wrap"]}}`), 400, "BadParameter", "wrap"},
		{"policies: secrets", "PUT", group + "contoso-A/accessPolicies/add" + version,
			policies(`{"objectId":"` + id + `","permissions":{"secrets":["get"]}}`), 400, "BadParameter", "only keys"},
		{"policies: twice", "PUT", group + "contoso-A/accessPolicies/add" + version,
			policies(`{"objectId":"` + id + `"},{"objectId":"` + id + `"}`), 400, "BadParameter", "twice"},
		{"policies: no vault", "PUT", group + "none/accessPolicies/add" + version, policies(""), 404, "ResourceNotFound", "none"},
		{"bad token of a page", "GET", strings.TrimSuffix(group, "/") + version + "&$skiptoken=*", "", 400, "BadParameter", "skiptoken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p problem
			status := n.call(c.method, c.url, c.body, &p)
			if status != c.status || p.Error.Code != c.code || !strings.Contains(p.Error.Message, c.word) {
				t.Errorf("%d %+v", status, p.Error)
			}
		})
	}
	if vaults, grants := count(t, n.db, "vault"), count(t, n.db, "vault_permission"); vaults != 1 || grants != 1 {
		t.Errorf("%d vaults and %d grants now", vaults, grants)
	}
	var v map[string]any
	if status := n.call("GET", group+"contoso-A"+version, "", &v); status != http.StatusOK {
		t.Fatal(status)
	}
}

// Roles of the service's operations do not manage vaults, except global and vault.
func TestVaultsAreManagedByTheRolesThatAreForIt(t *testing.T) {
	n := newTestServer(t, storetest.One(t)).tenant("contoso")
	for _, role := range api.Roles {
		name := "contoso-" + string(role)
		n.createVault(name, nil)
		var token string
		err := n.db.InTx(ctx, func(tx *store.Tx) (err error) {
			_, token, err = n.dir.AddToken(ctx, tx, access.Principal{Tenant: n.ID, Name: name, Roles: []api.Role{role}, Kind: access.ByToken, Created: n.now()}, uuid.Nil)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		want := http.StatusForbidden
		if role == api.Global || role == api.Vault {
			want = http.StatusOK
		}
		for _, method := range []string{"GET", "DELETE"} {
			if got, _ := n.callWith(method, n.armURL("/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/"+name), "", token, nil); got != want {
				t.Errorf("%s as %s: %d, want %d", method, role, got, want)
			}
		}
	}
}

package vault_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
	"github.com/google/uuid"

	"keyroll/internal/access"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// name sets a person's permissions by the person's name.
func (n *tenant) name(t *testing.T, kind armkeyvault.AccessPolicyUpdateKind, vault, name string, permissions ...armkeyvault.KeyPermissions) []*armkeyvault.AccessPolicyEntry {
	t.Helper()
	answer, err := n.management().UpdateAccessPolicy(ctx, "rg1", vault, kind, armkeyvault.VaultAccessPolicyParameters{
		Properties: &armkeyvault.VaultAccessPolicyProperties{AccessPolicies: []*armkeyvault.AccessPolicyEntry{{
			TenantID: to.Ptr(n.GUID.String()), ObjectID: &name, Permissions: &armkeyvault.Permissions{Keys: to.SliceOfPtrs(permissions...)},
		}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Properties.AccessPolicies
}

func TestPersonNeedNotBeKnownAndKeepsOneObjectID(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := contoso(t, db)
		n.createVault("contoso-B", nil)
		idIn := func(vault, name string) string {
			for _, a := range n.name(t, armkeyvault.AccessPolicyUpdateKindReplace, vault, name, "create", "get") {
				if id, err := uuid.Parse(*a.ObjectID); err != nil {
					t.Errorf("object id %s", *a.ObjectID)
				} else if id != n.admin.ID {
					return id.String()
				}
			}
			return ""
		}
		id := idIn("contoso-A", "alice@contoso.com")
		if again := idIn("contoso-B", "Alice@Contoso.com"); again != id || id == "" {
			t.Errorf("%s, then %s", id, again)
		}
		var shown struct {
			Properties struct {
				AccessPolicies []struct{ ObjectID, DisplayName string }
			}
		}
		n.call("GET", n.armURL("/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/contoso-B"), "", &shown)
		names := map[string]string{}
		for _, a := range shown.Properties.AccessPolicies {
			names[a.ObjectID] = a.DisplayName
		}
		if names[id] != "alice@contoso.com" || names[n.admin.ID.String()] != "admin" {
			t.Errorf("shown %v", names)
		}
		if left := n.name(t, armkeyvault.AccessPolicyUpdateKindRemove, "contoso-B", "ALICE@contoso.com"); len(left) != 1 {
			t.Errorf("left %v", left)
		}
		// An unknown person has no permissions to remove, and is not created.
		n.name(t, armkeyvault.AccessPolicyUpdateKindRemove, "contoso-B", "bob@contoso.com")
		if rows := count(t, db, "vault_person"); rows != 1 {
			t.Errorf("%d people", rows)
		}
	})
}

func TestPersonCannotLogIn(t *testing.T) {
	n := contoso(t, sqlite(t))
	var id uuid.UUID
	for _, a := range n.name(t, armkeyvault.AccessPolicyUpdateKindReplace, "contoso-A", "alice@contoso.com", "all") {
		if *a.ObjectID != n.admin.ID.String() {
			id = uuid.MustParse(*a.ObjectID)
		}
	}
	for _, secret := range []string{"", "alice@contoso.com", id.String()} {
		form := "grant_type=client_credentials&client_id=" + id.String() + "&client_secret=" + secret + "&scope=" + n.server.URL + "/.default"
		response, err := n.http.Post(n.server.URL+"/"+n.GUID.String()+"/oauth2/v2.0/token", "application/x-www-form-urlencoded", strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 401 {
			t.Errorf("secret %q: %d", secret, response.StatusCode)
		}
	}
}

func TestNameOfAPersonIsStoredSealed(t *testing.T) {
	n := contoso(t, sqlite(t))
	n.name(t, armkeyvault.AccessPolicyUpdateKindReplace, "contoso-A", "alice@contoso.com", "get")
	var stored []byte
	err := n.db.ViewOnce(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(context.Background(), "SELECT name FROM vault_person").Scan(&stored)
	})
	if err != nil || bytes.Contains(stored, []byte("alice")) || len(stored) == 0 {
		t.Errorf("%q, %v", stored, err)
	}
	if strings.Contains(n.log.String(), "alice") {
		t.Error("the log names her")
	}
}

func TestPersonsOfTwoTenantsAreDifferent(t *testing.T) {
	n := contoso(t, sqlite(t))
	other := n.testServer.tenant("fabrikam")
	other.createVault("fabrikam-A", nil)
	mine := n.name(t, armkeyvault.AccessPolicyUpdateKindReplace, "contoso-A", "alice@contoso.com", "get")
	theirs := other.name(t, armkeyvault.AccessPolicyUpdateKindReplace, "fabrikam-A", "alice@contoso.com", "get")
	for _, a := range mine {
		for _, b := range theirs {
			if *a.ObjectID == *b.ObjectID && *a.ObjectID != access.Exchange.String() {
				t.Errorf("both tenants know %s", *a.ObjectID)
			}
		}
	}
}

package vault_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"

	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

const otherSubscription = "0a1b2c3d-0000-4000-8000-00000000beef"

func TestVaultIsInTheSubscriptionThatCreatedIt(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := contoso(t, db)
		first := n.subscription
		n.subscription = strings.ToUpper(otherSubscription)
		made := n.createVault("contoso-B", nil)
		n.subscription = otherSubscription
		if want := "/subscriptions/" + otherSubscription + "/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/contoso-B"; *made.ID != want {
			t.Errorf("id %s, want %s", *made.ID, want)
		}
		m := n.management()
		_, err := m.Get(ctx, "rg1", "contoso-A", nil)
		refused(t, err, 404, "ResourceNotFound", "")
		_, err = n.putVault("contoso-A", nil)
		refused(t, err, 409, "VaultAlreadyExists", "")
		page, err := m.NewListBySubscriptionPager(nil).NextPage(ctx)
		if err != nil || len(page.Value) != 1 || *page.Value[0].Name != "contoso-B" {
			t.Errorf("list %v, %v", page.Value, err)
		}
		var answer struct {
			Value []struct{ SubscriptionID string }
		}
		n.call("GET", n.server.URL+"/subscriptions?api-version=2022-12-01", "", &answer)
		if got := fmt.Sprint(answer.Value); got != fmt.Sprintf("[{%s} {%s}]", first, otherSubscription) {
			t.Errorf("subscriptions %s", got)
		}

		// A deleted vault can be found, recovered and purged only there.
		if _, err := m.Delete(ctx, "rg1", "contoso-B", nil); err != nil {
			t.Fatal(err)
		}
		recovery := func(p *armkeyvault.VaultProperties) { p.CreateMode = to.Ptr(armkeyvault.CreateModeRecover) }
		n.subscription = first
		_, err = n.putVault("contoso-B", recovery)
		refused(t, err, 404, "DeletedVaultNotFound", "")
		_, err = n.management().BeginPurgeDeleted(ctx, "contoso-B", "eastus", nil)
		refused(t, err, 404, "DeletedVaultNotFound", "")
		if page, err := n.management().NewListDeletedPager(nil).NextPage(ctx); err != nil || len(page.Value) != 0 {
			t.Errorf("deleted vaults %v, %v", page.Value, err)
		}
		n.subscription = otherSubscription
		if back, err := n.putVault("contoso-B", recovery); err != nil || *back.ID != *made.ID {
			t.Errorf("recovered %v, %v", back.ID, err)
		}
	})
}

func TestRecoveryLevelFollowsVaultAndSubscription(t *testing.T) {
	for _, c := range []struct {
		registered, protected bool
		days                  int32
		level                 string
	}{
		{false, false, 90, "Recoverable+Purgeable"},
		{false, true, 90, "Recoverable"},
		{true, false, 90, "Recoverable+Purgeable"},
		{true, true, 90, "Recoverable+ProtectedSubscription"},
		{true, true, 7, "CustomizedRecoverable+ProtectedSubscription"},
		{false, true, 89, "CustomizedRecoverable"},
		{false, false, 7, "CustomizedRecoverable+Purgeable"},
	} {
		t.Run(c.level, func(t *testing.T) {
			n := newTestServer(t, sqlite(t)).tenant("contoso")
			if c.registered {
				n.register(t, featurePath)
			}
			n.createVault("contoso-A", func(p *armkeyvault.VaultProperties) {
				p.SoftDeleteRetentionInDays = &c.days
				if c.protected {
					p.EnablePurgeProtection = to.Ptr(true)
				}
			})
			k := create(t, n.keys("contoso-A"), "k", ec())
			if *k.Attributes.RecoveryLevel != c.level || *k.Attributes.RecoverableDays != c.days {
				t.Errorf("%s %d days, want %s", *k.Attributes.RecoveryLevel, *k.Attributes.RecoverableDays, c.level)
			}
		})
	}
}

const (
	featurePath  = "/providers/Microsoft.Features/providers/Microsoft.Resources/features/mandatoryRetentionPeriodEnabled"
	providerPath = "/providers/Microsoft.KeyVault"
)

func (n *tenant) register(t *testing.T, path string) {
	t.Helper()
	if status := n.call("POST", n.armURL(path+"/register"), "", nil); status != 200 {
		t.Fatal(status)
	}
}

func (n *tenant) armURL(path string) string {
	return n.server.URL + "/subscriptions/" + n.subscription + path + "?api-version=2021-07-01"
}

func TestRegistrationsAreOfOneSubscriptionOfOneTenant(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := newTestServer(t, db).tenant("contoso")
		other := n.testServer.tenant("fabrikam")
		states := func(n *tenant) []string {
			var feature struct {
				Name       string
				Properties struct{ State string }
			}
			var provider struct{ Namespace, RegistrationState string }
			n.call("GET", n.armURL(featurePath), "", &feature)
			n.call("GET", n.armURL(providerPath), "", &provider)
			if feature.Name != "Microsoft.Resources/mandatoryRetentionPeriodEnabled" || provider.Namespace != "Microsoft.KeyVault" {
				t.Errorf("%+v %+v", feature, provider)
			}
			return []string{feature.Properties.State, provider.RegistrationState}
		}
		none, both := []string{"NotRegistered", "NotRegistered"}, []string{"Registered", "Registered"}
		if got := states(n); !slices.Equal(got, none) {
			t.Errorf("at first %v", got)
		}
		for range 2 {
			n.register(t, featurePath)
			n.register(t, providerPath)
		}
		if got := states(n); !slices.Equal(got, both) {
			t.Errorf("registered: %v", got)
		}
		other.subscription = n.subscription
		if got := states(other); !slices.Equal(got, none) {
			t.Errorf("of another tenant %v", got)
		}
		n.subscription = otherSubscription
		if got := states(n); !slices.Equal(got, none) {
			t.Errorf("of another subscription %v", got)
		}
		for path, code := range map[string]string{
			strings.Replace(featurePath, "Period", "", 1) + "/register": "FeatureNotFound",
			"/providers/Microsoft.Compute/register":                     "InvalidResourceNamespace",
		} {
			var p problem
			if status := n.call("POST", n.armURL(path), "", &p); status != 404 || p.Error.Code != code {
				t.Errorf("%s: %d %+v", path, status, p)
			}
		}
	})
}

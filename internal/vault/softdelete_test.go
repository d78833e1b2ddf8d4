package vault_test

import (
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func deletedKeys(t *testing.T, c *azkeys.Client) (names []string) {
	t.Helper()
	for pager := c.NewListDeletedKeyPropertiesPager(nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page.Value {
			names = append(names, k.KID.Name())
		}
	}
	return names
}

func TestDeletedKeyIsRecoveredAsItWas(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := contoso(t, db)
		c := n.keys("contoso-A")
		first := create(t, c, "k", rsa2048())
		create(t, c, "k", ec())
		version := first.Key.KID.Version()
		wrapped, err := c.WrapKey(ctx, "k", version, wrapParameters("RSA-OAEP-256", []byte("secret")), nil)
		if err != nil {
			t.Fatal(err)
		}
		unwrap := func() error {
			_, err := c.UnwrapKey(ctx, "k", version, wrapParameters("RSA-OAEP-256", wrapped.Result), nil)
			return err
		}
		gone, err := c.DeleteKey(ctx, "k", nil)
		if err != nil {
			t.Fatal(err)
		}
		if *gone.RecoveryID != n.url("contoso-A")+"/deletedkeys/k" || gone.ScheduledPurgeDate.Sub(*gone.DeletedDate) != 90*24*time.Hour {
			t.Errorf("deleted %+v", gone)
		}
		refused(t, unwrap(), 404, "KeyNotFound", "")
		_, err = c.CreateKey(ctx, "k", ec(), nil)
		refused(t, err, 409, "Conflict", "ObjectIsDeletedButRecoverable", "k")
		_, err = c.DeleteKey(ctx, "k", nil)
		refused(t, err, 404, "KeyNotFound", "")
		if names := deletedKeys(t, c); len(names) != 1 || names[0] != "k" {
			t.Errorf("deleted keys %v", names)
		}
		if page, err := c.NewListKeyPropertiesPager(nil).NextPage(ctx); err != nil || len(page.Value) != 0 {
			t.Errorf("live keys %v, %v", page.Value, err)
		}
		if got, err := c.GetDeletedKey(ctx, "k", nil); err != nil || *got.Key.Kty != azkeys.KeyTypeEC {
			t.Errorf("deleted key: %v", err)
		}
		if _, err := c.RecoverDeletedKey(ctx, "k", nil); err != nil {
			t.Fatal(err)
		}
		if err := unwrap(); err != nil {
			t.Errorf("after its recovery: %v", err)
		}
		_, err = c.RecoverDeletedKey(ctx, "k", nil)
		refused(t, err, 404, "KeyNotFound", "")
		_, err = c.PurgeDeletedKey(ctx, "k", nil)
		refused(t, err, 404, "KeyNotFound", "")
	})
}

func TestPurgeDestroysAndPurgeProtectionForbidsIt(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := contoso(t, db)
		c := n.keys("contoso-A")
		create(t, c, "k", ec())
		if _, err := c.DeleteKey(ctx, "k", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PurgeDeletedKey(ctx, "k", nil); err != nil {
			t.Fatal(err)
		}
		_, err := c.RecoverDeletedKey(ctx, "k", nil)
		refused(t, err, 404, "KeyNotFound", "")
		if rows := count(t, db, "vault_key_version"); rows != 0 {
			t.Errorf("%d versions are left", rows)
		}
		n.createVault("contoso-B", func(p *armkeyvault.VaultProperties) { p.EnablePurgeProtection = to.Ptr(true) })
		c = n.keys("contoso-B")
		if k := create(t, c, "k", ec()); *k.Attributes.RecoveryLevel != "Recoverable" {
			t.Errorf("recovery level %s", *k.Attributes.RecoveryLevel)
		}
		if _, err := c.DeleteKey(ctx, "k", nil); err != nil {
			t.Fatal(err)
		}
		_, err = c.PurgeDeletedKey(ctx, "k", nil)
		refused(t, err, 403, "Forbidden", "", "purge protection", "contoso-B")
		if _, err := c.RecoverDeletedKey(ctx, "k", nil); err != nil {
			t.Errorf("recover: %v", err)
		}
	})
}

func TestDeletedKeysArePurgedAfterTheirRetention(t *testing.T) {
	n := newTestServer(t, sqlite(t)).tenant("contoso")
	n.createVault("short", func(p *armkeyvault.VaultProperties) { p.SoftDeleteRetentionInDays = to.Ptr(int32(7)) })
	c := n.keys("short")
	create(t, c, "k", ec())
	if _, err := c.DeleteKey(ctx, "k", nil); err != nil {
		t.Fatal(err)
	}
	n.advance(7*24*time.Hour - time.Minute)
	c = n.keys("short") // its tokens have ended with the time that passed
	if names := deletedKeys(t, c); len(names) != 1 {
		t.Errorf("before its end: %v", names)
	}
	n.advance(time.Minute)
	if names := deletedKeys(t, c); len(names) != 0 {
		t.Errorf("after its end: %v", names)
	}
	_, err := c.RecoverDeletedKey(ctx, "k", nil)
	refused(t, err, 404, "KeyNotFound", "")
	create(t, c, "k", ec())
	if rows := count(t, n.db, "vault_key_version"); rows != 1 {
		t.Errorf("%d versions", rows)
	}
}

func count(t *testing.T, db *store.DB, table string) (rows int) {
	t.Helper()
	err := db.ViewOnce(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&rows)
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

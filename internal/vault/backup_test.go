package vault_test

import (
	"bytes"
	"encoding/base64"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/google/uuid"

	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func restore(c *azkeys.Client, blob []byte) (azkeys.KeyBundle, error) {
	answer, err := c.RestoreKey(ctx, azkeys.RestoreKeyParameters{KeyBackup: blob}, nil)
	return answer.KeyBundle, err
}

func TestRestoreOfABackupReturnsAllVersionsInAnotherVault(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := contoso(t, db)
		n.createVault("contoso-B", nil)
		a, b := n.keys("contoso-A"), n.keys("contoso-B")
		p := rsa2048()
		p.Tags = map[string]*string{"year": to.Ptr("2016")}
		p.KeyAttributes = &azkeys.KeyAttributes{NotBefore: to.Ptr(time.Unix(1482796860, 0).UTC())}
		p.KeyOps = to.SliceOfPtrs(azkeys.KeyOperationWrapKey, azkeys.KeyOperationUnwrapKey)
		first := create(t, a, "k", p)
		second := create(t, a, "k", ec())
		version := first.Key.KID.Version()
		wrapped, err := a.WrapKey(ctx, "k", version, wrapParameters("RSA-OAEP-256", []byte("secret")), nil)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := a.BackupKey(ctx, "k", nil)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(blob.Value, first.Key.N) || bytes.Contains(blob.Value, []byte("pkcs8")) {
			t.Error("the backup is not sealed")
		}
		_, err = restore(a, blob.Value)
		refused(t, err, 409, "Conflict", "", "k", "contoso-A")
		newest, err := restore(b, blob.Value)
		if err != nil {
			t.Fatal(err)
		}
		if want := n.url("contoso-B") + "/keys/k/" + second.Key.KID.Version(); string(*newest.Key.KID) != want {
			t.Errorf("newest %s, want %s", *newest.Key.KID, want)
		}
		old, err := b.GetKey(ctx, "k", version, nil)
		if err != nil || !bytes.Equal(old.Key.N, first.Key.N) || *old.Tags["year"] != "2016" || len(old.Key.KeyOps) != 2 ||
			!old.Attributes.NotBefore.Equal(*p.KeyAttributes.NotBefore) || !old.Attributes.Created.Equal(*first.Attributes.Created) {
			t.Errorf("old version %+v %+v, %v", old.Key, old.Attributes, err)
		}
		if _, err := a.DeleteKey(ctx, "k", nil); err != nil {
			t.Fatal(err)
		}
		got, err := b.UnwrapKey(ctx, "k", version, wrapParameters("RSA-OAEP-256", wrapped.Result), nil)
		if err != nil || string(got.Result) != "secret" {
			t.Errorf("the restored copy, after the original was deleted: %q, %v", got.Result, err)
		}
		_, err = restore(a, blob.Value)
		refused(t, err, 409, "Conflict", "ObjectIsDeletedButRecoverable", "k")
		if _, err := a.PurgeDeletedKey(ctx, "k", nil); err != nil {
			t.Fatal(err)
		}
		if _, err = restore(a, blob.Value); err != nil {
			t.Errorf("once the name is free: %v", err)
		}
		if next := create(t, a, "k", ec()); next.Key.KID.Version() == second.Key.KID.Version() {
			t.Error("no new version after a restore")
		}
	})
}

func TestForeignOrDamagedBackupIsRefused(t *testing.T) {
	n := contoso(t, sqlite(t))
	c := n.keys("contoso-A")
	create(t, c, "k", ec())
	blob, err := c.BackupKey(ctx, "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	other := n.testServer.tenant("fabrikam")
	other.createVault("fabrikam-A", nil)
	_, err = restore(other.keys("fabrikam-A"), blob.Value)
	refused(t, err, 400, "BadParameter", "", "backup")
	for i := 0; i < len(blob.Value); i += 7 {
		changed := bytes.Clone(blob.Value)
		changed[i] ^= 1
		_, err := restore(c, changed)
		refused(t, err, 400, "BadParameter", "", "backup")
	}
	_, err = restore(c, blob.Value[:len(blob.Value)-1])
	refused(t, err, 400, "BadParameter", "", "backup")
	url := n.url("contoso-A") + "/keys/restore?api-version=7.4"
	for _, body := range []string{`{}`, `{"value":""}`, `{"value":"*"}`, `{"value":1}`,
		`{"value":"` + base64.RawURLEncoding.EncodeToString(make([]byte, 100<<10)) + `"}`} {
		var p problem
		if status := n.call("POST", url, body, &p); status != 400 || p.Error.Code != "BadParameter" {
			t.Errorf("%.40s: %d %+v", body, status, p)
		}
	}
	var p problem
	if status := n.call("POST", url, `{"value":"`+string(bytes.Repeat([]byte("A"), 5<<20))+`"}`, &p); status != 413 {
		t.Errorf("five megabytes: %d %+v", status, p)
	}
}

// As in Azure, a backup is restored within one subscription and one geography.
func TestBackupIsRestoredWithinOneSubscriptionAndGeography(t *testing.T) {
	n := contoso(t, sqlite(t))
	for name, location := range map[string]string{"east-one": "eastus", "west-one": "westus3", "berlin": "germanywestcentral", "nowhere": "moonnorth"} {
		n.createVaultIn(name, location)
	}
	create(t, n.keys("east-one"), "k", ec())
	blob, err := n.keys("east-one").BackupKey(ctx, "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := restore(n.keys("west-one"), blob.Value); err != nil {
		t.Errorf("another region of the same geography: %v", err)
	}
	for _, vault := range []string{"berlin", "nowhere"} {
		_, err = restore(n.keys(vault), blob.Value)
		refused(t, err, 400, "BadParameter", "", "geography United States", "one subscription and one geography", vault)
	}
	other := *n
	other.subscription = uuid.NewString()
	other.createVaultIn("elsewhere", "eastus")
	_, err = restore(n.keys("elsewhere"), blob.Value)
	refused(t, err, 400, "BadParameter", "", "subscription "+n.subscription, "elsewhere")
}

package vault_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

var ctx = context.Background()

func wrapParameters(algorithm azkeys.EncryptionAlgorithm, value []byte) azkeys.KeyOperationParameters {
	return azkeys.KeyOperationParameters{Algorithm: &algorithm, Value: value}
}

// TestOfficialClientRollsAKey is the life of a customer key, on both databases.
func TestOfficialClientRollsAKey(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := contoso(t, db)
		c := n.keys("contoso-A")
		first := create(t, c, "k1", rsa2048())
		if want := n.url("contoso-A") + "/keys/k1/" + first.Key.KID.Version(); string(*first.Key.KID) != want {
			t.Errorf("kid %s, want %s", *first.Key.KID, want)
		}
		if *first.Attributes.RecoveryLevel != "Recoverable+Purgeable" || *first.Attributes.RecoverableDays != 90 || !*first.Attributes.Enabled {
			t.Errorf("attributes %+v", first.Attributes)
		}
		secret := []byte("64 bytes or so of a policy key and its binding")
		old, err := c.WrapKey(ctx, "k1", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, secret), nil)
		if err != nil {
			t.Fatal(err)
		}
		if old.KID.Version() != first.Key.KID.Version() {
			t.Errorf("wrapped with %s", *old.KID)
		}
		second := create(t, c, "K1", rsa2048())
		if second.Key.KID.Name() != "k1" || second.Key.KID.Version() == first.Key.KID.Version() || bytes.Equal(second.Key.N, first.Key.N) {
			t.Errorf("second version %s", *second.Key.KID)
		}
		newest, err := c.GetKey(ctx, "k1", "", nil)
		if err != nil || newest.Key.KID.Version() != second.Key.KID.Version() {
			t.Errorf("newest %v, %v", newest.Key, err)
		}
		got, err := c.UnwrapKey(ctx, "k1", first.Key.KID.Version(), wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, old.Result), nil)
		if err != nil || !bytes.Equal(got.Result, secret) {
			t.Errorf("unwrap with the old version: %q, %v", got.Result, err)
		}
		_, err = c.UnwrapKey(ctx, "k1", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, old.Result), nil)
		refused(t, err, 400, "BadParameter", "", "was not wrapped by this key version")
		_, err = c.UnwrapKey(ctx, "k1", strings.Repeat("0", 32), wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, old.Result), nil)
		refused(t, err, 404, "KeyNotFound", "", "k1", "00000000")
		_, err = c.GetKey(ctx, "k2", "", nil)
		refused(t, err, 404, "KeyNotFound", "", "k2", "contoso-A")
	})
}

func TestKeyTypesSizesAndCurves(t *testing.T) {
	n := contoso(t, sqlite(t))
	c := n.keys("contoso-A")
	for _, curve := range []azkeys.CurveName{azkeys.CurveNameP256, azkeys.CurveNameP384, azkeys.CurveNameP521} {
		for _, kind := range []azkeys.KeyType{azkeys.KeyTypeEC, azkeys.KeyTypeECHSM} {
			k := create(t, c, "ec", azkeys.CreateKeyParameters{Kty: &kind, Curve: &curve})
			if *k.Key.Kty != kind || *k.Key.Crv != curve || len(k.Key.X) != len(k.Key.Y) || len(k.Key.X) < 32 {
				t.Errorf("%s %s: %+v", kind, curve, k.Key)
			}
		}
	}
	k := create(t, c, "rsa", azkeys.CreateKeyParameters{
		Kty: to.Ptr(azkeys.KeyTypeRSAHSM), KeySize: to.Ptr(int32(3072)),
		KeyOps: to.SliceOfPtrs(azkeys.KeyOperationWrapKey, azkeys.KeyOperationUnwrapKey),
		Tags:   map[string]*string{"owner": to.Ptr("compliance")},
	})
	if *k.Key.Kty != azkeys.KeyTypeRSAHSM || len(k.Key.N) != 384 || len(k.Key.KeyOps) != 2 || *k.Tags["owner"] != "compliance" {
		t.Errorf("got %+v", k.Key)
	}
	_, err := c.WrapKey(ctx, "ec", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("x")), nil)
	refused(t, err, 400, "BadParameter", "", "EC-HSM")
}

func TestUpdateKeepsPropertiesThatAreNotGiven(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := contoso(t, db)
		c := n.keys("contoso-A")
		from := time.Date(2016, 12, 27, 0, 1, 0, 0, time.UTC)
		p := ec()
		p.KeyAttributes = &azkeys.KeyAttributes{NotBefore: &from}
		p.Tags = map[string]*string{"a": to.Ptr("1")}
		made := create(t, c, "k", p)
		never := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
		update := func(version string, p azkeys.UpdateKeyParameters) azkeys.KeyBundle {
			t.Helper()
			answer, err := c.UpdateKey(ctx, "k", version, p, nil)
			if err != nil {
				t.Fatal(err)
			}
			return answer.KeyBundle
		}
		update("", azkeys.UpdateKeyParameters{KeyAttributes: &azkeys.KeyAttributes{Expires: &never}})
		update(made.Key.KID.Version(), azkeys.UpdateKeyParameters{KeyAttributes: &azkeys.KeyAttributes{Enabled: to.Ptr(false)}})
		update("", azkeys.UpdateKeyParameters{KeyOps: []*azkeys.KeyOperation{}})
		got, err := c.GetKey(ctx, "k", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		a := got.Attributes
		if *a.Enabled || !a.NotBefore.Equal(from) || !a.Expires.Equal(never) || *got.Tags["a"] != "1" ||
			len(got.Key.KeyOps) != 0 || got.Key.KID.Version() != made.Key.KID.Version() {
			t.Errorf("got %+v %v %v", a, got.Tags, got.Key.KeyOps)
		}
		_, err = c.UpdateKey(ctx, "k", "", azkeys.UpdateKeyParameters{KeyAttributes: &azkeys.KeyAttributes{Expires: &from}}, nil)
		refused(t, err, 400, "BadParameter", "", "exp")
		_, err = c.UpdateKey(ctx, "k", "", azkeys.UpdateKeyParameters{KeyOps: to.SliceOfPtrs(azkeys.KeyOperationWrapKey)}, nil)
		refused(t, err, 400, "BadParameter", "", "wrapKey", "EC")
	})
}

func TestListsArePagedCompleteAndInOrder(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := contoso(t, db)
		c := n.keys("contoso-A")
		var versions []string
		for i := range 30 {
			create(t, c, fmt.Sprintf("Key-%02d", i), ec())
			versions = append(versions, create(t, c, "zz", ec()).Key.KID.Version())
		}
		pages := 0
		var names []string
		for pager := c.NewListKeyPropertiesPager(nil); pager.More(); pages++ {
			page, err := pager.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range page.Value {
				names = append(names, k.KID.Name())
				if k.KID.Version() != "" || k.Attributes.Enabled == nil {
					t.Errorf("item %+v", k)
				}
			}
		}
		if pages != 2 || len(names) != 31 || names[0] != "Key-00" || names[29] != "Key-29" || names[30] != "zz" {
			t.Errorf("%d pages: %v", pages, names)
		}
		var keyWithVersion []string
		for pager := c.NewListKeyPropertiesVersionsPager("zz", nil); pager.More(); {
			page, err := pager.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range page.Value {
				keyWithVersion = append(keyWithVersion, k.KID.Version())
			}
		}
		if strings.Join(keyWithVersion, " ") != strings.Join(versions, " ") {
			t.Errorf("versions %v, want %v", keyWithVersion, versions)
		}
		var page struct {
			Value    []struct{ KID string }
			NextLink string
		}
		status := n.call("GET", n.url("contoso-A")+"/keys?api-version=7.4&maxresults=2", "", &page)
		if status != 200 || len(page.Value) != 2 || page.NextLink == "" {
			t.Errorf("maxresults: %d %+v", status, page)
		}
	})
}

// fixed is a credential that is the admin's own opaque token.
type fixed string

func (f fixed) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(f), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestOpaqueAdminTokenWorksAtVaults(t *testing.T) {
	n := contoso(t, sqlite(t))
	create(t, n.keysWith("contoso-A", fixed(n.token)), "k", ec())
}

func TestNoKeyMaterialOrTokenIsLoggedOrStoredInPlaintext(t *testing.T) {
	n := contoso(t, sqlite(t))
	c := n.keys("contoso-A")
	k := create(t, c, "k1", rsa2048())
	secret := bytes.Repeat([]byte("plaintext!"), 6)
	wrapped, err := c.WrapKey(ctx, "k1", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, secret), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.UnwrapKey(ctx, "k1", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, wrapped.Result), nil); err != nil {
		t.Fatal(err)
	}
	log := n.log.String()
	if strings.Contains(log, "plaintext!") || strings.Contains(log, "kr_") || strings.Contains(log, "eyJ") {
		t.Error("the log holds a secret")
	}
	for _, want := range []string{`"operation":"POST keys/{name}/{version?}/wrapkey"`, `"operation":"POST keys/{name}/unwrapkey"`} {
		if !strings.Contains(log, want) && !strings.Contains(log, strings.Replace(want, "{version?}/", "", 1)) {
			t.Errorf("no line %s in %s", want, log)
		}
	}
	for _, want := range []string{`"vault":"contoso-A"`, `"key":"k1"`, k.Key.KID.Version(), n.admin.ID.String(), `"result":"done"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not name %s", want)
		}
	}
	err = n.db.ViewOnce(ctx, func(tx *store.Tx) error {
		var sealed []byte
		err := tx.QueryRow(ctx, `SELECT sealed FROM vault_key_version`).Scan(&sealed)
		if bytes.Contains(sealed, k.Key.N) { // PKCS #8 holds the modulus as it is
			t.Error("key material is in plaintext")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestKeyMaterialMovedToAnotherVersionCannotBeDecrypted(t *testing.T) {
	n := contoso(t, sqlite(t))
	c := n.keys("contoso-A")
	create(t, c, "k1", rsa2048())
	create(t, c, "k2", rsa2048())
	wrapped, err := c.WrapKey(ctx, "k2", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("x")), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = n.db.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE vault_key_version SET sealed = (SELECT sealed FROM vault_key_version ORDER BY id LIMIT 1)`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.UnwrapKey(ctx, "k2", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, wrapped.Result), nil)
	refused(t, err, 500, "KeyDamaged", "")
	if !strings.Contains(n.log.String(), "cannot be decrypted under the seal") {
		t.Error("the log does not say the cause")
	}
	var damaged []string
	sound, err := n.vaults.CheckKeys(ctx, n.Tenant.ID, func(id string, err error) error {
		if !fail.Is(err, api.Damaged) {
			t.Error(err)
		}
		damaged = append(damaged, id)
		return nil
	})
	if err != nil || sound != 1 || len(damaged) != 1 || !strings.HasPrefix(damaged[0], "contoso-A/k2/") {
		t.Errorf("%d sound, damaged %q: %v", sound, damaged, err)
	}
}

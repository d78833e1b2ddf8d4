package vault_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/internal/access"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func importable(t *testing.T) (*rsa.PrivateKey, *azkeys.JSONWebKey) {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k, &azkeys.JSONWebKey{
		Kty: to.Ptr(azkeys.KeyTypeRSA), N: k.N.Bytes(), E: big.NewInt(int64(k.E)).Bytes(), D: k.D.Bytes(),
		P: k.Primes[0].Bytes(), Q: k.Primes[1].Bytes(),
		DP: k.Precomputed.Dp.Bytes(), DQ: k.Precomputed.Dq.Bytes(), QI: k.Precomputed.Qinv.Bytes(),
		KeyOps: to.SliceOfPtrs(azkeys.KeyOperationWrapKey, azkeys.KeyOperationUnwrapKey),
	}
}

func TestImportedKeyUnwrapsWhatItsOwnerWrapped(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := contoso(t, db)
		c := n.keys("contoso-A")
		create(t, c, "k", rsa2048())
		private, jwk := importable(t)
		made, err := c.ImportKey(ctx, "k", azkeys.ImportKeyParameters{Key: jwk, HSM: to.Ptr(true)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if *made.Key.Kty != azkeys.KeyTypeRSAHSM || !bytes.Equal(made.Key.N, private.N.Bytes()) || len(made.Key.KeyOps) != 2 || made.Key.D != nil {
			t.Errorf("made %+v", made.Key)
		}
		newest, err := c.GetKey(ctx, "k", "", nil)
		if err != nil || newest.Key.KID.Version() != made.Key.KID.Version() {
			t.Errorf("newest %v, %v", newest.Key, err)
		}
		wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &private.PublicKey, []byte("policy key"), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.UnwrapKey(ctx, "k", made.Key.KID.Version(), azkeys.KeyOperationParameters{
			Algorithm: to.Ptr(azkeys.EncryptionAlgorithmRSAOAEP256), Value: wrapped}, nil)
		if err != nil || string(got.Result) != "policy key" {
			t.Errorf("%q, %v", got.Result, err)
		}
	})
}

func TestInvalidImportIsRefusedAndRevealsNoPartOfTheKey(t *testing.T) {
	n := contoso(t, sqlite(t))
	c := n.keys("contoso-A")
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*azkeys.JSONWebKey){
		"the numbers":  func(k *azkeys.JSONWebKey) { k.D[len(k.D)-1] ^= 4 },
		`property "q"`: func(k *azkeys.JSONWebKey) { k.Q = nil },
		"bits":         func(k *azkeys.JSONWebKey) { k.N = k.N[:128] },
		"exponent":     func(k *azkeys.JSONWebKey) { k.E = []byte{3} },
		"only RSA keys": func(k *azkeys.JSONWebKey) {
			*k = azkeys.JSONWebKey{Kty: to.Ptr(azkeys.KeyTypeEC), X: point[1:33], Y: point[33:]}
		},
		"transfer form":                func(k *azkeys.JSONWebKey) { *k = azkeys.JSONWebKey{Kty: to.Ptr(azkeys.KeyTypeRSAHSM), T: []byte("{}")} },
		"is not a valid key operation": func(k *azkeys.JSONWebKey) { k.KeyOps = to.SliceOfPtrs(azkeys.KeyOperation("teleport")) },
	} {
		t.Run(name, func(t *testing.T) {
			private, jwk := importable(t)
			change(jwk)
			_, err := c.ImportKey(ctx, "k", azkeys.ImportKeyParameters{Key: jwk}, nil)
			refused(t, err, 400, "BadParameter", "", name)
			text := base64.RawURLEncoding.EncodeToString(private.Primes[0].Bytes())
			if err != nil && (strings.Contains(err.Error(), text) || strings.Contains(err.Error(), private.Primes[0].String())) {
				t.Error("the refusal shows a prime")
			}
		})
	}
	if rows := count(t, n.db, "vault_key"); rows != 0 {
		t.Errorf("%d keys were made", rows)
	}
}

func TestImportNeedsItsPermission(t *testing.T) {
	n := contoso(t, sqlite(t))
	n.grant("contoso-A", access.Exchange, "create", "get", "restore")
	_, jwk := importable(t)
	if _, err := n.keysAs("contoso-A", access.Exchange).ImportKey(ctx, "k", azkeys.ImportKeyParameters{Key: jwk}, nil); !denied(err) {
		t.Errorf("got %v", err)
	}
}

func TestImportedKeyIsStoredSealed(t *testing.T) {
	n := contoso(t, sqlite(t))
	private, jwk := importable(t)
	if _, err := n.keys("contoso-A").ImportKey(ctx, "k", azkeys.ImportKeyParameters{Key: jwk}, nil); err != nil {
		t.Fatal(err)
	}
	var public, sealed []byte
	err := n.db.ViewOnce(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(ctx, "SELECT public, sealed FROM vault_key_version").Scan(&public, &sealed)
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := json.Marshal(n.log.String())
	for _, place := range [][]byte{public, sealed, raw} {
		if bytes.Contains(place, private.Primes[0].Bytes()) || bytes.Contains(place, private.D.Bytes()) {
			t.Error("a number of the private key is in plaintext")
		}
	}
}

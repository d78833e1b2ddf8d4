package vault_test

import (
	"bytes"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
)

func TestDatesLimitTheOperationsOfAVersion(t *testing.T) {
	n := contoso(t, sqlite(t))
	c := n.keys("contoso-A")
	create(t, c, "k", rsa2048())
	wrapped, err := c.WrapKey(ctx, "k", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("secret")), nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	at := func(hours int) *time.Time { return to.Ptr(now.Add(time.Duration(hours) * time.Hour)) }
	for _, row := range []struct {
		name         string
		enabled      bool
		nbf, exp     *time.Time // times once set stay: the rows are in this order
		operations   []azkeys.KeyOperation
		wrap, unwrap string // inner codes of the refusals, or nothing
	}{
		{"no dates", true, nil, nil, nil, "", ""},
		{"disabled", false, nil, nil, nil, "KeyDisabled", "KeyDisabled"},
		{"wrapKey alone", true, nil, nil, []azkeys.KeyOperation{"wrapKey"}, "", "KeyOperationForbidden"},
		{"unwrapKey alone", true, nil, nil, []azkeys.KeyOperation{"unwrapKey"}, "KeyOperationForbidden", ""},
		{"neither", true, nil, nil, []azkeys.KeyOperation{}, "KeyOperationForbidden", "KeyOperationForbidden"},
		{"begun", true, at(-1), nil, []azkeys.KeyOperation{"wrapKey", "unwrapKey"}, "", ""},
		{"not yet valid", true, at(1), nil, nil, "KeyNotYetValid", ""},
		{"not yet valid and disabled", false, at(1), nil, nil, "KeyDisabled", "KeyDisabled"},
		{"within", true, at(-1), at(1), nil, "", ""},
		{"expired", true, at(-2), at(-1), nil, "KeyExpired", ""},
		{"expired and disabled", false, at(-2), at(-1), nil, "KeyDisabled", "KeyDisabled"},
		{"within again", true, at(-2), at(1), nil, "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := azkeys.UpdateKeyParameters{
				KeyAttributes: &azkeys.KeyAttributes{Enabled: &row.enabled, NotBefore: row.nbf, Expires: row.exp},
			}
			if row.operations != nil {
				p.KeyOps = to.SliceOfPtrs(row.operations...)
			}
			if _, err := c.UpdateKey(ctx, "k", "", p, nil); err != nil {
				t.Fatal(err)
			}
			check := func(what string, err error, inner string) {
				t.Helper()
				if inner == "" && err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if inner != "" {
					refused(t, err, 403, "Forbidden", inner, what)
				}
			}
			_, err = c.WrapKey(ctx, "k", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("x")), nil)
			check("wrapKey", err, row.wrap)
			_, err = c.UnwrapKey(ctx, "k", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, wrapped.Result), nil)
			check("unwrapKey", err, row.unwrap)
			if _, err := c.GetKey(ctx, "k", "", nil); err != nil {
				t.Errorf("get: %v", err)
			}
		})
	}
}

func TestDatesTakeEffectByThemselves(t *testing.T) {
	n := contoso(t, sqlite(t))
	p := rsa2048()
	p.KeyAttributes = &azkeys.KeyAttributes{NotBefore: to.Ptr(time.Now().Add(time.Minute)), Expires: to.Ptr(time.Now().Add(2 * time.Minute))}
	c := n.keys("contoso-A")
	create(t, c, "k", p)
	wrap := func() error {
		_, err := c.WrapKey(ctx, "k", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("x")), nil)
		return err
	}
	refused(t, wrap(), 403, "Forbidden", "KeyNotYetValid")
	n.advance(time.Minute)
	if err := wrap(); err != nil {
		t.Errorf("within: %v", err)
	}
	n.advance(time.Minute)
	refused(t, wrap(), 403, "Forbidden", "KeyExpired")
}

func TestAlgorithms(t *testing.T) {
	n := contoso(t, sqlite(t))
	c := n.keys("contoso-A")
	k := create(t, c, "k", rsa2048())
	for algorithm, most := range map[azkeys.EncryptionAlgorithm]int{
		azkeys.EncryptionAlgorithmRSAOAEP256: 256 - 66, azkeys.EncryptionAlgorithmRSAOAEP: 256 - 42,
	} {
		if algorithm == azkeys.EncryptionAlgorithmRSAOAEP && fips140.Enforced() {
			_, err := c.WrapKey(ctx, "k", "", wrapParameters(algorithm, []byte("x")), nil)
			refused(t, err, 400, "BadParameter", "", "FIPS 140", "RSA-OAEP-256")
			continue
		}
		value := bytes.Repeat([]byte{7}, most)
		wrapped, err := c.WrapKey(ctx, "k", "", wrapParameters(algorithm, value), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.UnwrapKey(ctx, "k", "", wrapParameters(algorithm, wrapped.Result), nil)
		if err != nil || !bytes.Equal(got.Result, value) {
			t.Errorf("%s: %v", algorithm, err)
		}
		_, err = c.WrapKey(ctx, "k", "", wrapParameters(algorithm, append(value, 1)), nil)
		refused(t, err, 400, "BadParameter", "", "at most")
	}
	for _, algorithm := range []azkeys.EncryptionAlgorithm{azkeys.EncryptionAlgorithmRSA15, azkeys.EncryptionAlgorithmA256GCM, ""} {
		_, err := c.WrapKey(ctx, "k", "", wrapParameters(algorithm, []byte("x")), nil)
		refused(t, err, 400, "BadParameter", "", "alg")
	}
	// A wrap that is made with the public key and Go's crypto can be unwrapped by the vault.
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(k.Key.N), E: int(new(big.Int).SetBytes(k.Key.E).Int64())}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, []byte("from outside"), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.UnwrapKey(ctx, "k", k.Key.KID.Version(), wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, wrapped), nil)
	if err != nil || string(got.Result) != "from outside" {
		t.Errorf("unwrap: %q, %v", got.Result, err)
	}
	for _, path := range []string{"/keys/k/wrapkey", "/keys/k//wrapkey", "/keys/k/" + strings.ToUpper(k.Key.KID.Version()) + "/wrapKey"} {
		var answer struct{ KID, Value string }
		if status := n.call("POST", n.url("contoso-a")+path+"?api-version=7.4", `{"alg":"RSA-OAEP-256","value":"eA"}`, &answer); status != 200 || answer.KID != string(*k.Key.KID) {
			t.Errorf("%s: %d %+v", path, status, answer)
		}
	}
}

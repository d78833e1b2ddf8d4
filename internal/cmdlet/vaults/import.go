package vaults

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/api"
	"keyroll/internal/cmdlet"
	"keyroll/internal/fail"
)

// ImportKey makes a key version from an RSA private key in PEM.
func (c *Client) ImportKey(ctx context.Context, vault, name string, file []byte, spec cmdlet.KeySpec) (cmdlet.Key, error) {
	private, err := readKey(file)
	if err != nil {
		return cmdlet.Key{}, err
	}
	hsm := strings.HasSuffix(spec.Type, "-HSM")
	parameters := azkeys.ImportKeyParameters{Key: webKey(private), HSM: &hsm, KeyAttributes: attributes(spec)}
	parameters.Key.KeyOps = operations(spec.Operations)
	if hsm {
		parameters.Key.Kty = to.Ptr(azkeys.KeyTypeRSAHSM)
	}
	return onKey(ctx, c, vault, name, func(v *azkeys.Client) (azkeys.KeyBundle, error) {
		r, err := v.ImportKey(ctx, name, parameters, nil)
		return r.KeyBundle, err
	})
}

// readKey reads PKCS #1 or PKCS #8 in PEM. No part of the file goes into an error.
func readKey(file []byte) (*rsa.PrivateKey, error) {
	refused := func(why string) error {
		return fail.New(api.InvalidArgument, "import key: %s", why).
			WithHint("give an RSA private key in PEM, neither encrypted nor in another form: openssl rsa -in FILE -out FILE.pem")
	}
	block, _ := pem.Decode(file)
	if block == nil {
		return nil, refused("the file holds no PEM")
	}
	defer clear(block.Bytes)
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, refused("the PEM is no private key")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, refused("the private key is not an RSA key")
	}
	return key, nil
}

func webKey(key *rsa.PrivateKey) *azkeys.JSONWebKey {
	key.Precompute()
	return &azkeys.JSONWebKey{
		Kty: to.Ptr(azkeys.KeyTypeRSA), N: key.N.Bytes(), E: big.NewInt(int64(key.E)).Bytes(), D: key.D.Bytes(),
		P: key.Primes[0].Bytes(), Q: key.Primes[1].Bytes(),
		DP: key.Precomputed.Dp.Bytes(), DQ: key.Precomputed.Dq.Bytes(), QI: key.Precomputed.Qinv.Bytes(),
	}
}

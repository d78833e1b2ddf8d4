package vaults

import (
	"context"
	"crypto/rsa"
	"math/big"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/internal/cmdlet"
)

// ImportKey makes a key version from an RSA private key.
func (c *Client) ImportKey(ctx context.Context, vault, name string, private *rsa.PrivateKey, spec cmdlet.KeySpec) (cmdlet.Key, error) {
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

func webKey(key *rsa.PrivateKey) *azkeys.JSONWebKey {
	key.Precompute()
	return &azkeys.JSONWebKey{
		Kty: to.Ptr(azkeys.KeyTypeRSA), N: key.N.Bytes(), E: big.NewInt(int64(key.E)).Bytes(), D: key.D.Bytes(),
		P: key.Primes[0].Bytes(), Q: key.Primes[1].Bytes(),
		DP: key.Precomputed.Dp.Bytes(), DQ: key.Precomputed.Dq.Bytes(), QI: key.Precomputed.Qinv.Bytes(),
	}
}

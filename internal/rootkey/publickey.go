package rootkey

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"math"
	"math/big"

	"keyroll/api"
	"keyroll/internal/fail"
)

// Limits of a published RSA key. Azure makes keys of 2048, 3072 and 4096 bits
// (learn.microsoft.com/azure/key-vault/keys/about-keys-details); NIST SP 800-56B
// revision 2 section 6.4.1.2 asks for an odd exponent above 2^16.
const (
	minimumBits     = 2048
	maximumBits     = 4096
	minimumExponent = 1<<16 + 1
	maximumExponent = math.MaxInt32
)

func isRSA(keyType string) bool { return keyType == "RSA" || keyType == "RSA-HSM" }

// publicKey reads the numbers of a JWK. An exponent above maximumExponent becomes
// 0, which CheckPublic refuses.
func publicKey(n, e []byte) *rsa.PublicKey {
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n)}
	if exponent := new(big.Int).SetBytes(e); exponent.IsInt64() && exponent.Int64() <= maximumExponent {
		key.E = int(exponent.Int64())
	}
	return key
}

// CheckPublic returns why the public key that a vault publishes must not be used to
// encrypt, empty if it may be used. The text begins with "has …", to follow the key's
// name.
func (k KeyInfo) CheckPublic() string {
	switch {
	case !isRSA(k.Type) || k.Public == nil:
		return "has no RSA public key"
	case k.Public.N.BitLen() < minimumBits || k.Public.N.BitLen() > maximumBits:
		return "has a modulus that is not 2048 to 4096 bits long"
	case k.Public.N.Bit(0) == 0:
		return "has an even modulus, which no RSA key has"
	case k.Public.E < minimumExponent || k.Public.E%2 == 0:
		return "has a public exponent that is not an odd number from 65537 to 2147483647"
	}
	return ""
}

// Encrypt wraps plaintext with the published public key as the vault's wrapKey
// would: RSA-OAEP-256, no label. It does not call the vault.
func (k KeyInfo) Encrypt(plaintext []byte) ([]byte, error) {
	if wrong := k.CheckPublic(); wrong != "" {
		return nil, fail.New(api.KeyUnusable, "%s %s", describe(k.KeyVersion), wrong).WithHint(distrust)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, k.Public, plaintext, nil)
	if err != nil {
		return nil, fail.New(api.KeyUnusable, "%s publishes an RSA key that cannot be used to encrypt", describe(k.KeyVersion)).WithHint(distrust).Because(err)
	}
	return wrapped, nil
}

// CheckWrap refuses a vault's wrap of plaintext that does not have the form of an RSA
// ciphertext of its published key. Even a value of that form may not be an encryption,
// so a wrap that a vault made is never stored.
func (k KeyInfo) CheckWrap(plaintext, wrapped []byte) error {
	wrong := ""
	switch {
	case bytes.Equal(wrapped, plaintext):
		wrong = "returned the plaintext as its wrap"
	case bytes.Contains(wrapped, plaintext):
		wrong = "returned a wrap that contains the plaintext"
	case k.Public == nil, len(wrapped) != k.Public.Size(), new(big.Int).SetBytes(wrapped).Cmp(k.Public.N) >= 0:
		wrong = "returned a wrap that is not an RSA ciphertext of the key that its vault publishes"
	default:
		return nil
	}
	return fail.New(api.KeyUnusable, "wrap with %s: it %s", describe(k.KeyVersion), wrong).WithHint(distrust)
}

// WrongKey is the error for a key that does not return what was encrypted to the
// public key that its vault publishes.
func (k KeyInfo) WrongKey(cause error) error {
	return fail.New(api.KeyUnusable, "unwrap with %s: it does not decrypt what was encrypted to the public key that the vault publishes for it", describe(k.KeyVersion)).
		WithHint(distrust).Because(cause)
}

const distrust = "the vault does not use the key that it publishes: name a key in another vault. Nothing was stored"

package material

import (
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"hash"

	"keyroll/internal/vault/azure"
)

// Algorithm is a way to wrap (RFC 7518, 4.3).
type Algorithm struct {
	hash func() hash.Hash
	size int  // of the hash, in bytes
	fips bool // whether FIPS 140-3 approves it
}

var algorithms = map[string]Algorithm{
	"RSA-OAEP-256": {sha256.New, sha256.Size, true},
	"RSA-OAEP":     {sha1.New, sha1.Size, false},
}

// AlgorithmOf returns the algorithm of a name, which FIPS 140-only mode may forbid.
func AlgorithmOf(name string) (Algorithm, error) {
	a, ok := algorithms[name]
	if !ok {
		return a, azure.Invalid("alg %.20q is not one of RSA-OAEP-256 and RSA-OAEP", name)
	}
	if !a.fips && fips140.Enforced() {
		return a, azure.Invalid("alg %q uses SHA-1, which FIPS 140-only mode forbids; use RSA-OAEP-256", name)
	}
	return a, nil
}

// Wrap encrypts a value under a public key.
func (a Algorithm) Wrap(k *rsa.PublicKey, value []byte) ([]byte, error) {
	if most := k.Size() - 2*a.size - 2; len(value) > most { // RFC 8017, 7.1.1
		return nil, azure.Invalid("value has %d bytes; this key wraps %d at most", len(value), most)
	}
	return rsa.EncryptOAEP(a.hash(), rand.Reader, k, value, nil)
}

// Unwrap decrypts a value under a private key.
func (a Algorithm) Unwrap(k *rsa.PrivateKey, value []byte) ([]byte, error) {
	plain, err := rsa.DecryptOAEP(a.hash(), nil, k, value, nil)
	if err != nil {
		return nil, azure.Invalid("value was not wrapped by this key version with this algorithm")
	}
	return plain, nil
}

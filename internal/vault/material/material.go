// Package material has the keys of a vault as bytes and numbers: it makes RSA and EC keys,
// reads them from PKCS #8, PKIX and JSON Web Keys, and wraps with RSA-OAEP. It stores
// nothing and knows neither vaults nor the properties of keys. A text in an error never has
// a part of a private key. Start reading at Request.
package material

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"slices"
	"strings"

	"keyroll/internal/vault/azure"
)

// curves that EC keys may have, by their names in RFC 7518. P-256K is not
// among them: Go's crypto and FIPS 140-3 do not have it.
var curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

// sizes of RSA keys in bits.
var sizes = []int{2048, 3072, 4096}

// IsRSA reports whether a type (RFC 7518 section 6.1, and those of Azure) is one of RSA keys.
func IsRSA(kind string) bool { return strings.HasPrefix(kind, "RSA") }

// Request says which key is to be made.
type Request struct {
	Type     string // RSA, RSA-HSM, EC, EC-HSM
	Size     *int   // of an RSA key, in bits; nil: 2048
	Exponent *int   // of an RSA key; nil: 65537
	Curve    string // of an EC key; empty: P-256
}

// Check refuses a type, size or curve that is not supported.
func (r Request) Check() error {
	switch r.Type {
	case "RSA", "RSA-HSM":
		if r.Size != nil && !slices.Contains(sizes, *r.Size) {
			return azure.Invalid("key_size %d is not one of %v", *r.Size, sizes)
		}
		if r.Exponent != nil && *r.Exponent != 65537 {
			return azure.Invalid("public_exponent %d is not 65537", *r.Exponent)
		}
	case "EC", "EC-HSM":
		if r.Curve != "" && curves[r.Curve] == nil {
			return azure.Invalid("crv %.20q is not one of P-256, P-384 and P-521", r.Curve)
		}
	case "":
		return azure.Invalid("property \"kty\" is missing")
	case "oct", "oct-HSM":
		return azure.Invalid("this vault offers no keys of type %s: kty must be one of RSA, RSA-HSM, EC and EC-HSM", r.Type)
	default:
		return azure.Invalid("kty %.20q must be one of RSA, RSA-HSM, EC and EC-HSM", r.Type)
	}
	return nil
}

// Generate makes the requested key, an RSA key by makeRSA.
func (r Request) Generate(makeRSA func(bits int) (*rsa.PrivateKey, error)) (crypto.Signer, error) {
	if IsRSA(r.Type) {
		bits := 2048
		if r.Size != nil {
			bits = *r.Size
		}
		return makeRSA(bits)
	}
	curve := curves["P-256"]
	if r.Curve != "" {
		curve = curves[r.Curve]
	}
	return ecdsa.GenerateKey(curve, rand.Reader)
}

// Encode returns a key as PKCS #8, and its public key as PKIX.
func Encode(signer crypto.Signer) (private, public []byte, err error) {
	if private, err = x509.MarshalPKCS8PrivateKey(signer); err != nil {
		return nil, nil, err
	}
	public, err = x509.MarshalPKIXPublicKey(signer.Public())
	return private, public, err
}

// ParsePrivate returns the key of a private key as PKCS #8 that fits a public key as PKIX.
func ParsePrivate(private, public []byte) (crypto.Signer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(private)
	if err != nil {
		return nil, errors.New("it cannot be parsed")
	}
	k, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errors.New("it is of an unknown type")
	}
	if fits, err := x509.MarshalPKIXPublicKey(k.Public()); err != nil || !bytes.Equal(fits, public) {
		return nil, errors.New("it does not fit the public key")
	}
	return k, nil
}

// ParsePublicRSA returns the RSA key of a public key as PKIX.
func ParsePublicRSA(public []byte) (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return nil, errors.New("its public key cannot be parsed")
	}
	k, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("its public key is not RSA")
	}
	return k, nil
}

// PublicOf returns the public key of a private key as PKCS #8, and fails if the key is not
// of the given type.
func PublicOf(private []byte, kind string) ([]byte, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(private)
	if err != nil {
		return nil, errors.New("a key cannot be parsed")
	}
	switch k := parsed.(type) {
	case *rsa.PrivateKey:
		if kind == "RSA" || kind == "RSA-HSM" {
			return x509.MarshalPKIXPublicKey(k.Public())
		}
	case *ecdsa.PrivateKey:
		if kind == "EC" || kind == "EC-HSM" {
			return x509.MarshalPKIXPublicKey(k.Public())
		}
	}
	return nil, errors.New("a key is not of its declared type")
}

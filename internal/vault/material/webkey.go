package material

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"slices"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/vault/azure"
)

// WebKey is a public key (RFC 7517, 7518) with the name of its version.
type WebKey struct {
	ID         string   `json:"kid"`
	Type       string   `json:"kty"`
	Operations []string `json:"key_ops"`
	N          string   `json:"n,omitempty"`
	E          string   `json:"e,omitempty"`
	Curve      string   `json:"crv,omitempty"`
	X          string   `json:"x,omitempty"`
	Y          string   `json:"y,omitempty"`
}

// ToWebKey returns the numbers of a public key as PKIX.
func ToWebKey(public []byte) (WebKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return WebKey{}, fail.New(api.Damaged, "read public key: it cannot be parsed").Because(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	switch k := parsed.(type) {
	case *rsa.PublicKey:
		return WebKey{N: text(k.N.Bytes()), E: text(big.NewInt(int64(k.E)).Bytes())}, nil
	case *ecdsa.PublicKey:
		point, err := k.Bytes() // 4, X, Y (SEC 1, 2.3.3)
		if err != nil {
			return WebKey{}, err
		}
		half := (len(point) - 1) / 2
		return WebKey{Curve: k.Params().Name, X: text(point[1 : 1+half]), Y: text(point[1+half:])}, nil
	}
	return WebKey{}, fail.New(api.Damaged, "read public key: it is of type %T", parsed)
}

// PrivateWebKey is an RSA key in the form of RFC 7518 section 6.3. Members that can be
// computed from the primes are ignored.
type PrivateWebKey struct {
	Type       string   `json:"kty"`
	Operations []string `json:"key_ops"`
	N          string   `json:"n"`
	E          string   `json:"e"`
	D          string   `json:"d"`
	P          string   `json:"p"`
	Q          string   `json:"q"`

	ID    json.RawMessage `json:"kid"`
	DP    json.RawMessage `json:"dp"`
	DQ    json.RawMessage `json:"dq"`
	QI    json.RawMessage `json:"qi"`
	Token json.RawMessage `json:"key_hsm"`
	Curve string          `json:"crv"`
	X     json.RawMessage `json:"x"`
	Y     json.RawMessage `json:"y"`
	K     json.RawMessage `json:"k"`
}

// RSAKey checks the key and returns it.
func (k PrivateWebKey) RSAKey() (*rsa.PrivateKey, error) {
	switch {
	case k.Token != nil:
		return nil, azure.Invalid("a key in transfer form (key_hsm) cannot be imported: this vault has no exchange key of a hardware module")
	case !IsRSA(k.Type):
		return nil, azure.Invalid("kty %.20q: only RSA keys can be imported", k.Type)
	}
	var numbers [5]*big.Int
	for i, text := range []string{k.N, k.E, k.D, k.P, k.Q} {
		name := string("nedpq"[i])
		raw, err := azure.DecodeBytes(name, text)
		if err != nil {
			return nil, err
		}
		if len(raw) == 0 {
			return nil, azure.Invalid("property %q is missing: a private RSA key has n, e, d, p and q", name)
		}
		numbers[i] = new(big.Int).SetBytes(raw)
		clear(raw)
	}
	n, e, d, primes := numbers[0], numbers[1], numbers[2], numbers[3:]
	if e.Cmp(big.NewInt(65537)) != 0 {
		return nil, azure.Invalid("the key's public exponent is not 65537")
	}
	if bits := n.BitLen(); !slices.Contains(sizes, bits) {
		return nil, azure.Invalid("the key has %d bits, which is not one of %v", bits, sizes)
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: 65537}, D: d, Primes: primes}
	key.Precompute()
	if key.Validate() != nil { // its error might show a number
		return nil, azure.Invalid("the numbers of the key are inconsistent")
	}
	return key, nil
}

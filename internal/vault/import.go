package vault

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"math/big"
	"slices"
)

// importRequest is the body of an import request.
type importRequest struct {
	Key        privateKey        `json:"key"`
	HSM        bool              `json:"hsm"`
	Attributes attributes        `json:"attributes"`
	Tags       map[string]string `json:"tags"`
}

// privateKey is an RSA key in the form of RFC 7518 section 6.3. Members that can be
// computed from the primes are ignored.
type privateKey struct {
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

// rsaKey checks the key and returns it.
func (k privateKey) rsaKey() (*rsa.PrivateKey, error) {
	switch {
	case k.Token != nil:
		return nil, invalid("a key in transfer form (key_hsm) cannot be imported: this vault has no exchange key of a hardware module")
	case !isRSA(k.Type):
		return nil, invalid("kty %.20q: only RSA keys can be imported", k.Type)
	}
	var numbers [5]*big.Int
	for i, text := range []string{k.N, k.E, k.D, k.P, k.Q} {
		name := string("nedpq"[i])
		raw, err := decodeBytes(name, text)
		if err != nil {
			return nil, err
		}
		if len(raw) == 0 {
			return nil, invalid("property %q is missing: a private RSA key has n, e, d, p and q", name)
		}
		numbers[i] = new(big.Int).SetBytes(raw)
		clear(raw)
	}
	n, e, d, primes := numbers[0], numbers[1], numbers[2], numbers[3:]
	if e.Cmp(big.NewInt(65537)) != 0 {
		return nil, invalid("the key's public exponent is not 65537")
	}
	if bits := n.BitLen(); !slices.Contains(sizes, bits) {
		return nil, invalid("the key has %d bits, which is not one of %v", bits, sizes)
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: 65537}, D: d, Primes: primes}
	key.Precompute()
	if key.Validate() != nil { // its error might show a number
		return nil, invalid("the numbers of the key are inconsistent")
	}
	return key, nil
}

// importKey creates a key, or a new version of the key of that name, from given
// material.
func (v *Vaults) importKey(ctx context.Context, c *call) (any, error) {
	var request importRequest
	if err := decode(c.body, &request); err != nil {
		return nil, err
	}
	given, err := request.Key.rsaKey()
	if err != nil {
		return nil, err
	}
	kind := "RSA"
	if request.HSM || request.Key.Type == "RSA-HSM" {
		kind = "RSA-HSM"
	}
	made, err := v.newVersion(c, createRequest{Type: kind, Operations: request.Key.Operations, Attributes: request.Attributes, Tags: request.Tags})
	if err != nil {
		return nil, err
	}
	private, public, err := encode(given)
	if err != nil {
		return nil, err
	}
	return v.addVersion(ctx, c, made, private, public)
}

package vault

import (
	"bytes"
	"container/list"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
)

// curves that EC keys may have, by their names in RFC 7518. P-256K is not
// among them: Go's crypto and FIPS 140-3 do not have it.
var curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

// sizes of RSA keys in bits.
var sizes = []int{2048, 3072, 4096}

func isRSA(kind string) bool { return strings.HasPrefix(kind, "RSA") }

// operationsOf returns the operations of this vault with a key of that type, which are
// also the default of the key's key_ops. An EC key has none here.
func operationsOf(kind string) []string {
	if isRSA(kind) {
		return []string{"wrapKey", "unwrapKey"}
	}
	return []string{}
}

// supported removes from stored operations those that this vault does not have:
// earlier versions stored more.
func supported(kind string, operations []string) []string {
	has := operationsOf(kind)
	return slices.DeleteFunc(slices.Clone(operations), func(o string) bool { return !slices.Contains(has, o) })
}

// check refuses a type, size or curve that this vault does not support.
func (r createRequest) check() error {
	if r.ReleasePolicy != nil {
		return notOffered("release")
	}
	switch r.Type {
	case "RSA", "RSA-HSM":
		if r.Size != nil && !slices.Contains(sizes, *r.Size) {
			return invalid("key_size %d is not one of %v", *r.Size, sizes)
		}
		if r.Exponent != nil && *r.Exponent != 65537 {
			return invalid("public_exponent %d is not 65537", *r.Exponent)
		}
	case "EC", "EC-HSM":
		if r.Curve != "" && curves[r.Curve] == nil {
			return invalid("crv %.20q is not one of P-256, P-384 and P-521", r.Curve)
		}
	case "":
		return invalid("property \"kty\" is missing")
	case "oct", "oct-HSM":
		return invalid("this vault offers no keys of type %s: kty must be one of RSA, RSA-HSM, EC and EC-HSM", r.Type)
	default:
		return invalid("kty %.20q must be one of RSA, RSA-HSM, EC and EC-HSM", r.Type)
	}
	return nil
}

// generate makes key material: PKCS #8 and PKIX. As many keys are generated in
// parallel as there are processors; tenants take turns.
func (v *Vaults) generate(ctx context.Context, tenant int64, r createRequest) (private, public []byte, err error) {
	leave, err := v.generations.Enter(ctx, tenant)
	if err != nil {
		return nil, nil, queueError(err)
	}
	defer leave()
	var signer crypto.Signer
	if isRSA(r.Type) {
		bits := 2048
		if r.Size != nil {
			bits = *r.Size
		}
		signer, err = v.makeRSA(bits)
	} else {
		curve := curves["P-256"]
		if r.Curve != "" {
			curve = curves[r.Curve]
		}
		signer, err = ecdsa.GenerateKey(curve, rand.Reader)
	}
	if err != nil {
		return nil, nil, err
	}
	return encode(signer)
}

// queueError is the error of a request that ended while it was waiting for its turn.
func queueError(err error) error {
	return fail.New(api.Unavailable, "the request ended before its turn came").Because(err)
}

func encode(signer crypto.Signer) (private, public []byte, err error) {
	if private, err = x509.MarshalPKCS8PrivateKey(signer); err != nil {
		return nil, nil, err
	}
	public, err = x509.MarshalPKIXPublicKey(signer.Public())
	return private, public, err
}

func toWebKey(public []byte) (webKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return webKey{}, fail.New(api.Damaged, "read public key: it cannot be parsed").Because(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	switch k := parsed.(type) {
	case *rsa.PublicKey:
		return webKey{N: text(k.N.Bytes()), E: text(big.NewInt(int64(k.E)).Bytes())}, nil
	case *ecdsa.PublicKey:
		point, err := k.Bytes() // 4, X, Y (SEC 1, 2.3.3)
		if err != nil {
			return webKey{}, err
		}
		half := (len(point) - 1) / 2
		return webKey{Curve: k.Params().Name, X: text(point[1 : 1+half]), Y: text(point[1+half:])}, nil
	}
	return webKey{}, fail.New(api.Damaged, "read public key: it is of type %T", parsed)
}

// label binds sealed material to its tenant, vault, key and version.
func label(vault int64, v version) string {
	return fmt.Sprintf("vault key %d/%d/%d/%s", v.tenant, vault, v.key, v.version)
}

func (v *Vaults) sealKey(vault int64, ver version, private []byte) []byte {
	return v.seal.Seal(label(vault, ver), private)
}

// publicRSA returns the public key of an RSA version.
func (v version) publicRSA() (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(v.public)
	if err != nil {
		return nil, damagedKey(v, "its public key cannot be parsed")
	}
	k, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, damagedKey(v, "its public key is not RSA")
	}
	return k, nil
}

// openRSA returns the private key of an RSA version.
func (v *Vaults) openRSA(vault int64, ver version) (*rsa.PrivateKey, error) {
	if k := v.opened.get(ver.id, v.now()); k != nil {
		return k, nil
	}
	private, err := v.openPrivate(vault, ver)
	if err != nil {
		return nil, err
	}
	k, ok := private.(*rsa.PrivateKey)
	if !ok {
		return nil, damagedKey(ver, "it is not RSA")
	}
	v.opened.put(ver.id, k, v.now())
	return k, nil
}

// openPrivate returns the private key of a version after it has checked that it fits
// the public key.
func (v *Vaults) openPrivate(vault int64, ver version) (crypto.Signer, error) {
	private, err := v.seal.Open(label(vault, ver), ver.sealed)
	if fail.Is(err, api.Damaged) {
		return nil, damagedKey(ver, "it cannot be decrypted under the seal")
	}
	if err != nil {
		return nil, err
	}
	defer clear(private)
	parsed, err := x509.ParsePKCS8PrivateKey(private)
	if err != nil {
		return nil, damagedKey(ver, "it cannot be parsed")
	}
	k, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, damagedKey(ver, "it is of an unknown type")
	}
	if public, err := x509.MarshalPKIXPublicKey(k.Public()); err != nil || !bytes.Equal(public, ver.public) {
		return nil, damagedKey(ver, "it does not fit the public key")
	}
	return k, nil
}

// damagedKey returns a refusal with the Azure error code KeyDamaged, by which the
// service distinguishes it from a failure of the vault.
func damagedKey(ver version, why string) error {
	return refuse(api.Damaged, "KeyDamaged", "", "the private key of key version %s is damaged: %s", ver.version, why)
}

const (
	cacheSize     = 256
	cacheLifetime = 10 * time.Minute
)

// cache holds the private keys that were used last, parsed. It only saves decrypting
// them: whether a version may be used is read from the database at each use.
type cache struct {
	mu    sync.Mutex
	order *list.List // of *cached, the last used first
	byID  map[int64]*list.Element
}

type cached struct {
	id    int64
	key   *rsa.PrivateKey
	until time.Time
}

func newCache() *cache { return &cache{order: list.New(), byID: map[int64]*list.Element{}} }

func (c *cache) get(id int64, now time.Time) *rsa.PrivateKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byID[id]
	if e == nil {
		return nil
	}
	entry := e.Value.(*cached)
	if !now.Before(entry.until) {
		c.remove(e)
		return nil
	}
	c.order.MoveToFront(e)
	return entry.key
}

func (c *cache) put(id int64, key *rsa.PrivateKey, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byID[id]; e != nil {
		c.remove(e)
	}
	c.byID[id] = c.order.PushFront(&cached{id, key, now.Add(cacheLifetime)})
	if c.order.Len() > cacheSize {
		c.remove(c.order.Back())
	}
}

func (c *cache) drop(ids ...int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if e := c.byID[id]; e != nil {
			c.remove(e)
		}
	}
}

func (c *cache) remove(e *list.Element) {
	delete(c.byID, e.Value.(*cached).id)
	c.order.Remove(e)
}

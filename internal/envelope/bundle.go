package envelope

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
)

// BundleSize is the length of a bundle, in bytes. It fits RSA-OAEP-256 with 2048 bits (190 bytes).
const BundleSize = KeySize + sha256.Size

const bundleLabel = "keyroll/bundle/1"

// Binding identifies the policy key in a bundle.
type Binding struct {
	Tenant, Policy uuid.UUID
	PolicyKey      int64
	Generation     uint32
}

// digest is SHA-256 over the label and the binding's fields, each of fixed width.
func (b Binding) digest() [sha256.Size]byte {
	return sha256.Sum256(b.append([]byte(bundleLabel)))
}

func (b Binding) append(dst []byte) []byte {
	dst = append(dst, b.Tenant[:]...)
	dst = append(dst, b.Policy[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(b.PolicyKey))
	return binary.BigEndian.AppendUint32(dst, b.Generation)
}

// Bundle returns the 64 bytes that a customer key wraps: the policy key and
// SHA-256 over its binding. RSA-OAEP as vaults offer it has no additional data, so
// the binding is part of the plaintext. The caller clears the bundle. A bundle does
// not prove who wrapped it: see Revision.MAC.
func Bundle(policyKey *Key, b Binding) []byte {
	digest := b.digest()
	return append(policyKey.Bytes(), digest[:]...)
}

// Unbundle returns the policy key in bundle. It fails Damaged if the bundle was made
// for another tenant, policy, policy key or generation than b.
func Unbundle(bundle []byte, b Binding) (*Key, error) {
	if len(bundle) != BundleSize {
		return nil, fail.New(api.Damaged, "unwrap policy key %d generation %d of policy %v: the wrap holds %d bytes, not %d",
			b.PolicyKey, b.Generation, b.Policy, len(bundle), BundleSize)
	}
	digest := b.digest()
	if subtle.ConstantTimeCompare(bundle[KeySize:], digest[:]) != 1 {
		return nil, fail.New(api.Damaged, "unwrap policy key %d generation %d of policy %v: the wrap was made for another tenant, policy, policy key or generation",
			b.PolicyKey, b.Generation, b.Policy)
	}
	key, err := KeyFrom(bundle[:KeySize])
	if err != nil {
		return nil, fmt.Errorf("unwrap policy key %d generation %d of policy %v: %w", b.PolicyKey, b.Generation, b.Policy, err)
	}
	return key, nil
}

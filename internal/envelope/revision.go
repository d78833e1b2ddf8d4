package envelope

import (
	"crypto/hmac"
	"encoding/binary"
	"strings"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
)

const revisionLabel = "keyroll/revision/1"

// KeyVersion identifies one exact version of a customer key. Vault is the bare name
// of one of keyroll's own vaults, or else the vault's URL. Names are bound as given,
// so the caller converts them to one case first.
type KeyVersion struct {
	Vault, Key, Version string
}

// Fold returns the key version with the names of its vault and key in lower case, to
// compare key versions: Azure Key Vault ignores the case of these names.
func (kv KeyVersion) Fold() KeyVersion {
	kv.Vault, kv.Key = strings.ToLower(kv.Vault), strings.ToLower(kv.Key)
	return kv
}

// Revision is the content of a policy revision's row: one policy key, wrapped by two
// exact customer key versions and by the availability key. A wrap that was erased is
// empty.
type Revision struct {
	ID                         uuid.UUID
	Binding                    Binding
	Primary, Secondary         KeyVersion
	WrapPrimary, WrapSecondary []byte
	WrapAvailability           []byte
	AvailabilityKey            int64
	AvailabilityVersion        uint32
}

// MAC returns HMAC-SHA-256 over every field, under the service's own key for
// revisions. Anyone can wrap data with a public key; only a holder of this key can
// make a revision that keyroll accepts. It must be checked before any unwrap.
func (r Revision) MAC(key *Key) []byte {
	availability := binary.BigEndian.AppendUint64(nil, uint64(r.AvailabilityKey))
	availability = binary.BigEndian.AppendUint32(availability, r.AvailabilityVersion)
	return key.MAC(
		[]byte(revisionLabel),
		r.ID[:],
		r.Binding.append(nil),
		[]byte(r.Primary.Vault), []byte(r.Primary.Key), []byte(r.Primary.Version),
		[]byte(r.Secondary.Vault), []byte(r.Secondary.Key), []byte(r.Secondary.Version),
		r.WrapPrimary, r.WrapSecondary, r.WrapAvailability,
		availability,
	)
}

// Check fails Damaged, naming the revision, unless mac is the revision's MAC under
// key.
func (r Revision) Check(key *Key, mac []byte) error {
	if !hmac.Equal(r.MAC(key), mac) {
		return fail.New(api.Damaged, "check policy revision %v of policy %v: its row was altered: the MAC does not match", r.ID, r.Binding.Policy)
	}
	return nil
}

package envelope

import (
	"crypto/hmac"
	"encoding/binary"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/fail"
)

const revisionLabel = "keyroll/revision/1"

// KeyVersion names one exact version of a customer key. Vault is the bare name
// of one of keyroll's own vaults, else the vault's URL; names are bound as
// given, so the caller brings them to one case first.
type KeyVersion struct {
	Vault, Key, Version string
}

// Revision is everything a policy revision's row says: one policy key, wrapped
// by two exact customer key versions and by the availability key. A wrap that
// was erased is empty.
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
// revisions. Anyone may wrap to a public key; only who has this key can make a
// revision that is opened. Check it before any unwrap.
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

// Check returns fail Damaged, naming the revision, unless mac is the revision's
// MAC under key.
func (r Revision) Check(key *Key, mac []byte) error {
	if !hmac.Equal(r.MAC(key), mac) {
		return fail.New(api.Damaged, "check policy revision %v of policy %v: its row was altered: the MAC does not match", r.ID, r.Binding.Policy)
	}
	return nil
}

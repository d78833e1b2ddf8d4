package envelope

import (
	"bytes"
	"testing"

	"github.com/google/uuid"
)

func testRevision() Revision {
	return Revision{
		ID:                  uuid.MustParse("6a1f0000-1111-4222-8333-444444444403"),
		Binding:             testBinding,
		Primary:             KeyVersion{"contoso-a", "k1", "0123456789abcdef0123456789abcdef"},
		Secondary:           KeyVersion{"https://contoso-b.vault.azure.net", "k2", "fedcba9876543210fedcba9876543210"},
		WrapPrimary:         bytes.Repeat([]byte{1}, 256),
		WrapSecondary:       bytes.Repeat([]byte{2}, 384),
		WrapAvailability:    bytes.Repeat([]byte{3}, 61),
		AvailabilityKey:     88,
		AvailabilityVersion: 9,
	}
}

func TestARevisionChecksAgainstItsOwnMAC(t *testing.T) {
	key, r := NewKey(), testRevision()
	if err := r.Check(key, r.MAC(key)); err != nil {
		t.Error(err)
	}
	r.WrapPrimary, r.WrapSecondary, r.WrapAvailability = nil, nil, nil // an erased one
	if err := r.Check(key, r.MAC(key)); err != nil {
		t.Error(err)
	}
}

func TestARevisionAlteredInAnyFieldIsRefused(t *testing.T) {
	key, r := NewKey(), testRevision()
	mac := r.MAC(key)
	for name, altered := range alterations(r) {
		if err := altered.Check(key, mac); err == nil {
			t.Errorf("%s: not noticed", name)
		} else {
			wantDamaged(t, err, "check policy revision "+altered.ID.String())
		}
	}
}

// Bytes moved from the end of one field to the beginning of the next change the MAC.
func TestTheMACOfARevisionSeparatesItsFields(t *testing.T) {
	key, r := NewKey(), testRevision()
	mac := r.MAC(key)
	shifts := map[string]func(*Revision){
		"vault to key":             func(r *Revision) { r.Primary.Vault, r.Primary.Key = "contoso-", "a"+r.Primary.Key },
		"key to version":           func(r *Revision) { r.Primary.Key, r.Primary.Version = "k", "1"+r.Primary.Version },
		"version to next vault":    func(r *Revision) { r.Primary.Version, r.Secondary.Vault = "", r.Primary.Version+r.Secondary.Vault },
		"keys swapped":             func(r *Revision) { r.Primary, r.Secondary = r.Secondary, r.Primary },
		"wraps swapped":            func(r *Revision) { r.WrapPrimary, r.WrapSecondary = r.WrapSecondary, r.WrapPrimary },
		"primary wrap erased":      func(r *Revision) { r.WrapPrimary = nil },
		"wrap moved to the next":   func(r *Revision) { r.WrapSecondary, r.WrapPrimary = append(r.WrapPrimary, r.WrapSecondary...), nil },
		"wrap from another policy": func(r *Revision) { r.WrapPrimary = bytes.Repeat([]byte{9}, 256) },
	}
	for name, shift := range shifts {
		t.Run(name, func(t *testing.T) {
			altered := testRevision()
			shift(&altered)
			wantDamaged(t, altered.Check(key, mac), r.ID.String())
		})
	}
}

// Public keys are not enough to forge a revision: without the service's key there is no MAC.
func TestARevisionForgedWithoutTheKeyIsRefused(t *testing.T) {
	key, r := NewKey(), testRevision()
	forgeries := map[string][]byte{
		"another key": r.MAC(NewKey()),
		"no MAC":      nil,
		"zeros":       make([]byte, 32),
		"cut":         r.MAC(key)[:31],
		"extended":    append(r.MAC(key), 0),
		"a MAC of the same key for something else": key.MAC([]byte("x"), r.ID[:]),
	}
	for name, mac := range forgeries {
		t.Run(name, func(t *testing.T) { wantDamaged(t, r.Check(key, mac), r.ID.String()) })
	}
}

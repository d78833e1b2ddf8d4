package envelope

import (
	"encoding/binary"
	"fmt"
)

// Class is the kind of the children of a key page. The values are in stored data and
// never change.
type Class uint8

// The classes.
const (
	ClassActive       Class = 1 // active mailboxes
	ClassInactive     Class = 2 // inactive mailboxes
	ClassDisconnected Class = 3 // disconnected mailboxes
	ClassDisabled     Class = 4 // disabled mailboxes
	ClassSite         Class = 5 // sites
	ClassWorkload     Class = 6 // workload stores
	ClassBackup       Class = 7 // backups
	ClassBlob         Class = 8 // blobs of one container
	ClassDirectory    Class = 9 // the directory of a tenant

	// olderBit turns a class into the class of pages with keys of the older generation.
	olderBit Class = 16
)

// Older returns the class of pages with the previous generation of the keys of
// containers of class c; they exist while blob keys are still under that generation.
func (c Class) Older() Class { return c | olderBit }

// IsOlder reports whether c is a class of older keys.
func (c Class) IsOlder() bool { return c&olderBit != 0 }

var classes = [...]string{
	ClassActive:       "active",
	ClassInactive:     "inactive",
	ClassDisconnected: "disconnected",
	ClassDisabled:     "disabled",
	ClassSite:         "sites",
	ClassWorkload:     "workloads",
	ClassBackup:       "backups",
	ClassBlob:         "blobs",
	ClassDirectory:    "directories",
}

// String returns the class as in the columns of the ledger.
func (c Class) String() string {
	if !c.known() {
		return fmt.Sprintf("class %d", uint8(c))
	}
	if c&olderBit != 0 {
		return "older " + classes[c&^olderBit]
	}
	return classes[c]
}

// known reports whether the class exists. Only containers whose keys a roll replaces
// have older generations of them.
func (c Class) known() bool {
	if c&olderBit != 0 {
		c &^= olderBit
		return c != 0 && c < ClassBackup
	}
	return c != 0 && int(c) < len(classes)
}

// EncryptionContext identifies the sealed object and its position in the key hierarchy.
// All fields are authenticated as additional data of the seal; fields that a purpose
// does not use are zero.
type EncryptionContext struct {
	Tenant     int64
	Parent     int64  // id of the sealing key
	Generation uint32 // generation of the sealing key
	Child      int64  // id of the sealed object: page, item, container, policy key
	Class      Class  // of a key page
	Version    uint64 // of the sealed object, incremented at each replacement
	Count      uint32 // slots of a key page
}

// String returns the encryption context for errors; it contains only ids and counts.
func (p EncryptionContext) String() string {
	s := fmt.Sprintf("child %d of tenant %d under parent %d generation %d, version %d", p.Child, p.Tenant, p.Parent, p.Generation, p.Version)
	if p.Class != 0 || p.Count != 0 {
		s += fmt.Sprintf(", %d slots of class %v", p.Count, p.Class)
	}
	return s
}

// additionalData returns the additional data of a seal: label, purpose and every
// field of the encryption context, each of fixed width.
func (p EncryptionContext) additionalData(purpose Purpose) []byte {
	b := make([]byte, 0, len(sealLabel)+42)
	b = append(b, sealLabel...)
	b = append(b, byte(purpose), byte(p.Class))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Tenant))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Parent))
	b = binary.BigEndian.AppendUint32(b, p.Generation)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Child))
	b = binary.BigEndian.AppendUint64(b, p.Version)
	return binary.BigEndian.AppendUint32(b, p.Count)
}

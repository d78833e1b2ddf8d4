// Package principals has the operations of the api package on tokens, approvers,
// applications and approvals, one method each.
//
// It decides who may give, replace and remove which credential; package access stores and
// checks them. It knows no policy, container or content. Start reading at Principals.
package principals

import (
	"time"

	"keyroll/internal/access"
	"keyroll/internal/operation"
)

// Principals implements operations of the api package.
type Principals struct {
	frame  *operation.Frame
	access *access.Directory
	acts   Acts
	now    func() time.Time
}

// New returns the operations on the principals of a directory.
func New(f *operation.Frame, d *access.Directory, acts Acts, now func() time.Time) *Principals {
	return &Principals{frame: f, access: d, acts: acts, now: now}
}

//go:build !linux

package blob

import (
	"errors"
	"os"
)

const canSyncAll = false

// syncAll is never called where canSyncAll is false.
func syncAll(*os.File) error { return errors.ErrUnsupported }

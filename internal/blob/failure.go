package blob

import (
	"errors"
	"syscall"

	"keyroll/api"
	"keyroll/internal/fail"
)

// named gives the operating system's refusal of a write its code and says what
// ends it. The log gets the place; a user, who may be of any tenant, does not.
// Any other error is returned as it is.
func named(err error) error {
	switch {
	case err == nil || fail.CodeOf(err) != api.Internal: // of the content that was to be stored
		return err
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG):
		return fail.New(api.InsufficientStorage, "the blob store has no room left; nothing was stored").Because(err).
			WithHint("free space where the blobs are stored, which keyroll's log names; the same request then works without a restart")
	case errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		return fail.New(api.ReadOnly, "the blob store takes no writes; nothing was stored").Because(err).
			WithHint("make the blob store, which keyroll's log names, writable again; the same request then works without a restart")
	}
	return err
}

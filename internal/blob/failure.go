package blob

import (
	"errors"
	"syscall"

	"keyroll/api"
	"keyroll/internal/fail"
)

// osWriteError gives an operating system's write error its code and a hint. The log shows
// the location of the store; a user, who may be of any tenant, does not see it. Any
// other error is returned unchanged.
func osWriteError(err error) error {
	switch {
	case err == nil || fail.CodeOf(err) != api.Internal: // an error of the content to be stored
		return err
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG):
		return fail.New(api.InsufficientStorage, "the blob store has no space left; nothing was stored").Because(err).
			WithHint("free space where the blobs are stored, which keyroll's log names; the same request then works without a restart")
	case errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		return fail.New(api.ReadOnly, "the blob store does not accept writes; nothing was stored").Because(err).
			WithHint("make the blob store, which keyroll's log names, writable again; the same request then works without a restart")
	}
	return err
}

package roll

import (
	"context"
	"errors"

	"keyroll/api"
	"keyroll/internal/fail"
)

// recordBlocked records in a roll's message that the database or the blob store
// blocks it until an operator repairs that. If the database cannot even be written
// to, only the log says so.
func (r *Roller) recordBlocked(ctx context.Context, ro Roll, err error) {
	code, detail, hint := fail.Public(err)
	switch code {
	case api.InsufficientStorage, api.ReadOnly, api.Unavailable:
		var f *fail.Error
		if errors.As(err, &f) && f.Err != nil { // names the storage location, which the tenant must not see
			r.Logger.WarnContext(ctx, "a roll is held up", "roll", ro.ID, "cause", f.Err)
		}
		if hint != "" {
			detail += "; " + hint
		}
		_, _ = r.recordWait(ctx, ro, "waits: "+detail)
	}
}

package roll

import (
	"context"
	"errors"

	"keyroll/api"
	"keyroll/internal/fail"
)

// held notes what holds a roll up where that is a state of the database or the
// blob store that an operator ends. A database that cannot take even the note
// leaves the log to tell it.
func (r *Roller) held(ctx context.Context, ro Roll, err error) {
	code, detail, hint := fail.Public(err)
	switch code {
	case api.InsufficientStorage, api.ReadOnly, api.Unavailable:
		var f *fail.Error
		if errors.As(err, &f) && f.Err != nil { // names the place, which the tenant is not told
			r.Logger.WarnContext(ctx, "a roll is held up", "roll", ro.ID, "cause", f.Err)
		}
		if hint != "" {
			detail += "; " + hint
		}
		_, _ = r.waiting(ctx, ro, "waits: "+detail)
	}
}

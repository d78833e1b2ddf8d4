package depth_test

import (
	"testing"

	"keyroll/api"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/envelope"
	"keyroll/internal/fault"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// A roll that found no key page to move, because its only mailbox was moved at an
// access, has begun as soon as that mailbox has a new key.
func TestDeepRollIsNotCancelledAfterItsFirstKey(t *testing.T) {
	each(t, func(w *contenttest.Fixture) {
		pol := w.MailboxPolicy("p")
		box := w.Mailbox(pol.ID, "alice", 1)
		box, err := w.Containers.SetState(w.Ctx, w.Tenant, box, envelope.ClassInactive)
		w.Must(err)
		ro := w.Begin(pol, api.DepthContainer, roll.Options{IncludeInactive: true})
		_, err = w.Containers.MoveKeyAfterAccess(w.Ctx, box)
		w.Must(err)
		tried, refused := false, error(nil)
		defer fault.Set(nil)
		fault.Set(func(point string) {
			if point == "rekey.after-commit" {
				fault.Set(nil)
				tried = true
				refused = w.DB.InTx(w.Ctx, func(tx *store.Tx) error { return roll.Cancel(w.Ctx, tx, w.Policies, ro, w.Clock.Now()) })
			}
		})
		w.Finish(ro, api.RollFinished)
		if !tried {
			t.Fatal("the mailbox got no new key")
		}
		policytest.Refuses(t, refused, api.Conflict)
		w.WantMail(box)
	})
}

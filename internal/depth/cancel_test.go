package depth_test

import (
	"testing"

	"keyroll/api"
	"keyroll/internal/depth"
	"keyroll/internal/envelope"
	"keyroll/internal/fault"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// A roll that found no key page to move, because its only mailbox was moved at an
// access, has begun as soon as that mailbox has a new key.
func TestDeepRollIsNotCancelledAfterItsFirstKey(t *testing.T) {
	each(t, func(w *world) {
		pol := w.MailboxPolicy("p")
		box := w.mailbox(pol.ID, "alice", 1)
		box, err := w.containers.SetState(w.Ctx, w.Tenant, box, envelope.ClassInactive, nil)
		w.Must(err)
		var ro roll.Roll
		w.Refresh(pol, api.DepthContainer, false, func(tx *store.Tx, c policy.Change) error {
			mark, err := depth.NewWatermark(w.Ctx, tx)
			if err != nil {
				return err
			}
			ro, err = roll.Begin(w.Ctx, tx, w.Policies, roll.Start{Policy: c.Policy, Revision: c.Revision.GUID, Depth: api.DepthContainer, Watermark: mark,
				Options: roll.Options{IncludeInactive: true}}, w.Clock.Now())
			return err
		})
		_, err = w.containers.MoveKeyAfterAccess(w.Ctx, box)
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
		w.finish(ro, api.RollFinished)
		if !tried {
			t.Fatal("the mailbox got no new key")
		}
		policytest.Refuses(t, refused, api.Conflict)
		w.wantContent(box)
	})
}

package roll

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/lease"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// runPolicyStage runs stage policy. It ends the roll, or reports that the stage is
// through and returns what could not be moved.
func (r *Roller) runPolicyStage(ctx context.Context, ro Roll) (result, error) {
	m := r.meter(ro.ID)
	looked := r.config.Now()
	moved := func(n int64) error {
		now := r.config.Now()
		m.add(now, n)
		if now.Sub(looked) < rateWindow {
			return nil
		}
		looked = now
		return r.warnIfLate(ctx, ro)
	}
	for first := true; ; first = false {
		if !first || looked.After(ro.Deadline) { // it has no rate before the first pass
			if err := r.warnIfLate(ctx, ro); err != nil {
				return result{}, err
			}
		}
		out, err := r.pass(ctx, ro, moved)
		switch {
		case err != nil && fail.CodeOf(err) == api.Damaged: // the target
			out.damaged = append(out.damaged, damage{fmt.Sprintf("policy key %d", ro.Target), err})
		case err != nil:
			return r.handleInterruption(ctx, ro, err)
		}
		if err := r.recordSkipped(ctx, ro, out.damaged); err != nil {
			return result{}, err
		}
		ended, through, err := r.finishPolicyStage(ctx, ro, out)
		if err != nil || ended || through {
			return result{through: through, damaged: out.damaged}, err
		}
	}
}

// finishPolicyStage ends, if nothing is left to move, stage policy of a roll with
// deep stages, and any other roll altogether.
func (r *Roller) finishPolicyStage(ctx context.Context, ro Roll, out outcome) (ended, through bool, err error) {
	if ro.deepStages() == nil {
		ended, err = r.finishIfDone(ctx, ro, out)
		return ended, false, err
	}
	var left int64
	err = r.config.DB.InTx(ctx, func(tx *store.Tx) error {
		left, err = r.lockAndCount(ctx, tx, ro)
		return err
	})
	return false, err == nil && (left == 0 || out.moved == 0 && len(out.damaged) > 0), err
}

// lockAndCount takes the policy's lock and counts the keys that are still under an
// older policy key. Until the transaction ends no key can be wrapped there.
func (r *Roller) lockAndCount(ctx context.Context, tx *store.Tx, ro Roll) (int64, error) {
	locks := []int64{ro.Policy}
	if ro.Source != 0 {
		locks = append(locks, ro.Source)
	}
	if err := policy.LockAll(ctx, tx, locks...); err != nil {
		return 0, err
	}
	sc, err := ro.scope(ctx, tx, r.config.Policies)
	if err != nil {
		return 0, err
	}
	return sc.withOlder().count(ctx, tx)
}

// failureMessage says what a roll could not move.
func (o outcome) failureMessage() string {
	first := fmt.Sprintf("%s cannot be decrypted: %v", o.damaged[0].what, o.damaged[0].err)
	if n := len(o.damaged); n > 1 {
		return fmt.Sprintf("%d objects cannot be decrypted and were skipped; the first: %s", n, first)
	}
	return first
}

// finishIfDone ends a roll if nothing is left to move. It decides by a query under
// the policy's lock, so that no key can be wrapped under an older key afterwards.
func (r *Roller) finishIfDone(ctx context.Context, ro Roll, out outcome) (ended bool, err error) {
	fault.Point("roll.before-finish")
	err = lease.InTx(ctx, r.config.DB, func(tx *store.Tx) error {
		ended = false
		left, err := r.lockAndCount(ctx, tx, ro)
		if err != nil {
			return err
		}
		state, message := api.RollFinished, ""
		if left > 0 && (out.moved > 0 || len(out.damaged) == 0) {
			return nil // other transactions changed pages meanwhile: another pass is needed
		}
		if out.deepWorkRemains != nil {
			if remains, err := out.deepWorkRemains(ctx, tx); err != nil || remains {
				return err
			}
		}
		if len(out.damaged) > 0 && (left > 0 || ro.deepStages() != nil) {
			state = api.RollFailed
			message = out.failureMessage()
		}
		ended = true
		first, err := setState(ctx, tx, ro, change{api.RollRunning, state, message, r.config.Now()})
		if err != nil || !first || state != api.RollFinished { // another node may have ended it; what that one skipped must stay
			return err
		}
		return deleteSkipped(ctx, tx, ro)
	})
	if err == nil && ended {
		fault.Point("roll.after-finish")
		r.config.Settled(ro.Tenant, ro.Policy)
		if ro.Source != 0 {
			r.config.Settled(ro.Tenant, ro.Source)
		}
	}
	return ended, err
}

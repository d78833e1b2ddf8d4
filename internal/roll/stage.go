package roll

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/lease"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// errStopped ends the work on a roll that was paused or ended by another request
// meanwhile.
var errStopped = errors.New("roll: stopped")

// damage is an object that cannot be decrypted: a key page, or a policy key with
// everything under it.
type damage struct {
	what string
	err  error
}

// result is how the work on a roll, or on its stage policy, ended.
type result struct {
	// through says that stage policy is finished and the deep stages follow, and damaged
	// what could not be moved.
	through bool
	damaged []damage
	// waits says that the roll is to be continued, not before retryAfter.
	waits      bool
	retryAfter time.Duration
}

// deepStages returns the stages of a roll below policy keys, nil if it has none.
func (r Roll) deepStages() []api.RollStage {
	switch r.Depth {
	case api.DepthContainer:
		return []api.RollStage{api.StageContainer}
	case api.DepthContent:
		return []api.RollStage{api.StageContainer, api.StageContent}
	}
	return nil
}

// currentTarget returns the policy key that a roll moves containers to, and whether
// the roll has been stopped.
func (r *Roller) currentTarget(ctx context.Context, ro Roll) (target policy.KeyRow, stopped bool, err error) {
	var now Roll
	err = r.config.DB.View(ctx, func(tx *store.Tx) (err error) {
		if now, err = byID(ctx, tx, ro.Tenant, ro.ID); err != nil {
			return err
		}
		target, err = r.config.Policies.Current(ctx, tx, ro.Tenant, ro.Policy)
		return err
	})
	return target, now.State != api.RollRunning || target.ID != ro.Target, err
}

// lockRunning is called at the start of a transaction that moves something. It
// takes shared locks, which keep the policies from being changed, and returns the
// roll as it is now; it fails with errStopped if the roll no longer runs.
func (r *Roller) lockRunning(ctx context.Context, tx *store.Tx, ro Roll) (now Roll, err error) {
	if ro.Source != 0 { // it must not be purged meanwhile
		if err := tx.Lock(ctx, ro.Source, false); err != nil {
			return now, err
		}
	}
	current, refused := r.config.Policies.LockCurrent(ctx, tx, ro.Tenant, ro.Policy)
	now, err = byID(ctx, tx, ro.Tenant, ro.ID)
	switch {
	case err != nil:
		return now, err
	case now.State != api.RollRunning: // a policy that was left accepts no containers
		return now, errStopped
	case refused != nil:
		return now, refused
	case current.ID != ro.Target:
		return now, errStopped
	}
	return now, nil
}

// clearMessage removes the message that says what a roll waits for.
func (r *Roller) clearMessage(ctx context.Context, tx *store.Tx, now Roll) error {
	if now.Message == "" {
		return nil
	}
	_, err := setState(ctx, tx, now, change{from: api.RollRunning, to: api.RollRunning})
	return err
}

// handleInterruption handles the error that ended a stage: a roll that was stopped
// is no error, one whose vaults refuse or do not answer waits, and one whose target
// is damaged ends.
func (r *Roller) handleInterruption(ctx context.Context, ro Roll, err error) (result, error) {
	code := fail.CodeOf(err)
	switch {
	case errors.Is(err, errStopped):
		return result{}, nil
	case code == api.VaultDenied || code == api.VaultUnavailable || code == api.Unavailable:
		r.config.Logger.WarnContext(ctx, "a roll waits for a vault", "roll", ro.ID, "error", err)
		waits, recorded := r.recordWait(ctx, ro, "waits: "+err.Error())
		return result{waits: waits, retryAfter: fail.RetryAfter(err)}, recorded
	case code == api.Damaged:
		_, err = r.finishIfDone(ctx, ro, outcome{damaged: []damage{{fmt.Sprintf("the target of roll %d", ro.ID), err}}})
	}
	return result{}, err
}

// recordWait records why a roll waits, and counts the wait. The roll stays running,
// unless another request ended or paused it meanwhile.
func (r *Roller) recordWait(ctx context.Context, ro Roll, why string) (waits bool, err error) {
	err = lease.InTx(ctx, r.config.DB, func(tx *store.Tx) error {
		if waits, err = setState(ctx, tx, ro, change{from: api.RollRunning, to: api.RollRunning, message: why}); err != nil || !waits {
			return err
		}
		return recordProgress(ctx, tx, ro, progress{retries: 1}, r.config.Now())
	})
	return waits, err
}

// recordBlocked records in a roll's message that the database or the blob store
// blocks it until an operator repairs that. If the database cannot even be written
// to, only the log says so.
func (r *Roller) recordBlocked(ctx context.Context, ro Roll, err error) {
	code, detail, hint := fail.Public(err)
	switch code {
	case api.InsufficientStorage, api.ReadOnly, api.Unavailable:
		var f *fail.Error
		if errors.As(err, &f) && f.Err != nil { // names the storage location, which the tenant must not see
			r.config.Logger.WarnContext(ctx, "a roll is held up", "roll", ro.ID, "cause", f.Err)
		}
		if hint != "" {
			detail += "; " + hint
		}
		_, _ = r.recordWait(ctx, ro, "waits: "+detail)
	}
}

// pause waits for a time, or until ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

package roll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// Deep does the work of a roll below policy keys. Its implementation knows
// containers and content, which this package does not.
type Deep interface {
	// Size counts the work of a stage in a scope: blob keys, or bytes of content.
	Size(ctx context.Context, tx *store.Tx, stage api.RollStage, sc Scope) (int64, error)
	// Remaining returns up to limit containers of a scope for which a stage still has
	// work to do.
	Remaining(ctx context.Context, tx *store.Tx, stage api.RollStage, sc Scope, limit int) ([]int64, error)
	// Work goes once over the containers of a scope, does the part of a stage that
	// no other node is doing, and reports whether it did anything.
	Work(ctx context.Context, s Share) (did bool, err error)
}

// Scope selects the containers of a roll: those whose keys are under one of
// Parents in a page of one of Classes. Keys older than Watermark are replaced.
type Scope struct {
	Tenant    int64
	Parents   []keypage.Parent
	Classes   []envelope.Class
	Watermark int64
}

// Share describes one node's part in a stage.
type Share struct {
	Scope
	Stage api.RollStage
	// Node names the node to the others; it is empty on a single node.
	Node string
	// AtOnce bounds the containers that are worked on at a time.
	AtOnce int
	// Limited says that the containers a second are limited, so that latency does
	// not matter.
	Limited bool
	// Counts says that this is the last stage: a container that it has finished is
	// counted as done.
	Counts bool
	// LockRunning is called at the start of each transaction. It takes the locks, and fails
	// when the roll has been stopped.
	LockRunning func(tx *store.Tx) error
	// Throttle waits until the rate limits allow so many containers and bytes.
	Throttle func(ctx context.Context, containers, bytes int64) error
	// Done is called in each transaction and records what it did.
	Done func(tx *store.Tx, d Done) error
	// Skip reports that a part of a container cannot be moved, and why.
	Skip func(container int64, what string, err error)
}

// Done is what a transaction of a stage did.
type Done struct {
	Containers, Blobs, Bytes int64
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

// withoutBackups returns the classes whose containers a deep stage changes. A
// backup is frozen: its key is moved to another policy key and is not replaced.
func withoutBackups(classes []envelope.Class) []envelope.Class {
	return slices.DeleteFunc(slices.Clone(classes), func(c envelope.Class) bool { return c == envelope.ClassBackup })
}

// olderClasses returns the classes of the keys that containers of some classes had
// before a roll replaced them. They are moved together with the new ones.
func olderClasses(classes []envelope.Class) (all []envelope.Class) {
	for _, c := range withoutBackups(classes) {
		all = append(all, c.Older())
	}
	return all
}

// scope returns the scope of the deep stages of a roll below some policy keys.
func (r Roll) scope(parents []keypage.Parent) Scope {
	return Scope{Tenant: r.Tenant, Parents: parents, Classes: withoutBackups(r.Classes), Watermark: r.Watermark}
}

// countDeepWork counts the blob keys and bytes that the deep stages of a roll have
// to process.
func (r *Roller) countDeepWork(ctx context.Context, tx *store.Tx, ro Roll, sc Scope) (blobs, bytes int64, err error) {
	for _, stage := range ro.deepStages() {
		n, err := r.Deep.Size(ctx, tx, stage, sc)
		if err != nil {
			return 0, 0, err
		}
		switch stage {
		case api.StageContainer:
			blobs = n
		case api.StageContent:
			bytes = n
		}
	}
	return blobs, bytes, nil
}

// runDeepStages runs the stages below policy keys once stage policy is finished,
// and ends the roll. damaged is what stage policy could not move.
func (r *Roller) runDeepStages(ctx context.Context, ro Roll, damaged []damage) (waits bool, rest time.Duration, err error) {
	target, stopped, err := r.currentTarget(ctx, ro)
	if err != nil || stopped {
		return false, 0, err
	}
	store.PastID(ro.Watermark)
	w := &deepWork{Roller: r, roll: ro, damaged: damaged, containers: map[int64]bool{},
		scope: ro.scope([]keypage.Parent{{ID: target.ID, Generation: target.Generation}})}
	for _, stage := range ro.deepStages() {
		if err := w.runStage(ctx, stage); err != nil {
			return r.handleInterruption(ctx, ro, err)
		}
	}
	ended, err := r.finishIfDone(ctx, ro, outcome{damaged: w.damaged, deepWorkRemains: w.workRemains})
	if err == nil && !ended { // a container with an older key was added meanwhile
		return true, 0, nil
	}
	return false, 0, err
}

// currentTarget returns the policy key that a roll moves containers to, and whether
// the roll has been stopped.
func (r *Roller) currentTarget(ctx context.Context, ro Roll) (target policy.KeyRow, stopped bool, err error) {
	var now Roll
	err = r.DB.View(ctx, func(tx *store.Tx) (err error) {
		if now, err = byID(ctx, tx, ro.Tenant, ro.ID); err != nil {
			return err
		}
		target, err = r.Policies.Current(ctx, tx, ro.Tenant, ro.Policy)
		return err
	})
	return target, now.State != api.RollRunning || target.ID != ro.Target, err
}

// deepWork is the work of one node on the deep stages of a roll.
type deepWork struct {
	*Roller
	roll  Roll
	scope Scope

	mu         sync.Mutex
	damaged    []damage
	containers map[int64]bool // that have a skipped part
}

// idlePause is how long a node waits while all remaining containers are being
// worked on by others.
const idlePause = 500 * time.Millisecond

// maxIdleRounds bounds how often a single node goes over a stage without any
// progress.
const maxIdleRounds = 20

// runStage works on a stage until only skipped containers remain.
func (w *deepWork) runStage(ctx context.Context, stage api.RollStage) error {
	if err := w.recordStage(ctx, stage); err != nil {
		return err
	}
	m := w.meter(w.roll.ID)
	looked := w.Now()
	for idle := 0; ; {
		did, err := w.Deep.Work(ctx, w.share(ctx, stage, m))
		if recorded := w.recordDamaged(ctx); err == nil {
			err = recorded
		}
		if err != nil {
			return err
		}
		left, err := w.remaining(ctx, stage)
		if err != nil || len(left) == 0 {
			return err
		}
		if now := w.Now(); now.Sub(looked) >= rateWindow {
			looked = now
			if err := w.warnIfLate(ctx, w.roll); err != nil {
				return err
			}
		}
		if did {
			idle = 0
			continue
		}
		if idle++; w.Leases == nil && idle > maxIdleRounds {
			return fail.New(api.Damaged, "container %d is not moved, and no error explains it", left[0])
		}
		select {
		case <-time.After(idlePause):
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, stopped, err := w.currentTarget(ctx, w.roll); err != nil {
			return err
		} else if stopped {
			return errStopped
		}
	}
}

// remaining returns some of the containers for which a stage still has work to do,
// without those that have a skipped part.
func (w *deepWork) remaining(ctx context.Context, stage api.RollStage) (left []int64, err error) {
	err = w.DB.View(ctx, func(tx *store.Tx) (err error) {
		left, err = w.remainingIn(ctx, tx, stage)
		return err
	})
	return left, err
}

func (w *deepWork) remainingIn(ctx context.Context, tx *store.Tx, stage api.RollStage) ([]int64, error) {
	w.mu.Lock()
	skipped := len(w.containers)
	w.mu.Unlock()
	left, err := w.Deep.Remaining(ctx, tx, stage, w.scope, skipped+1)
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(left, func(id int64) bool { return w.containers[id] }), err
}

// workRemains reports whether a stage has something to do after all: a container
// may have been assigned to the policy, or restored, after the stage looked.
func (w *deepWork) workRemains(ctx context.Context, tx *store.Tx) (bool, error) {
	for _, stage := range w.roll.deepStages() {
		if left, err := w.remainingIn(ctx, tx, stage); err != nil || len(left) > 0 {
			return true, err
		}
	}
	return false, nil
}

// recordStage records the stage that a roll has reached and, at the first one, how
// much work there is.
func (w *deepWork) recordStage(ctx context.Context, stage api.RollStage) error {
	var blobs, bytes int64
	ro := w.roll
	err := w.DB.View(ctx, func(tx *store.Tx) error {
		now, err := byID(ctx, tx, ro.Tenant, ro.ID)
		if err == nil && now.Stage == "" {
			blobs, bytes, err = w.countDeepWork(ctx, tx, ro, w.scope)
		}
		return err
	})
	if err != nil {
		return err
	}
	return w.DB.InTx(ctx, func(tx *store.Tx) error { return enterStage(ctx, tx, ro, stage, blobs, bytes) })
}

func (w *deepWork) share(ctx context.Context, stage api.RollStage, m *meter) Share {
	ro := w.roll
	stages := ro.deepStages()
	return Share{Scope: w.scope, Stage: stage, Node: w.Leases.Holder(), Counts: stage == stages[len(stages)-1],
		AtOnce: w.containersAtOnce(ro), Limited: w.Limit != nil || ro.ContainersPerSecond > 0,
		LockRunning: func(tx *store.Tx) error {
			now, err := w.lockRunning(ctx, tx, ro)
			if err != nil {
				return err
			}
			if err := recordProgress(ctx, tx, now, true, 0, w.Now()); err != nil { // from here on it cannot be cancelled
				return err
			}
			return w.clearMessage(ctx, tx, now)
		},
		Throttle: func(ctx context.Context, containers, bytes int64) error {
			return w.throttle(ctx, ro, containers, bytes)
		},
		Done: func(tx *store.Tx, d Done) error {
			switch stage {
			case api.StageContainer:
				m.add(w.Now(), d.Blobs)
			case api.StageContent:
				m.add(w.Now(), d.Bytes)
			}
			return recordDeepProgress(ctx, tx, ro, d, w.Now())
		},
		Skip: func(container int64, what string, err error) { w.addDamaged(ctx, container, what, err) }}
}

// recordDamaged writes to the database what was skipped. addDamaged does not do so
// itself, because it may be called within a transaction.
func (w *deepWork) recordDamaged(ctx context.Context) error {
	w.mu.Lock()
	damaged := slices.Clone(w.damaged)
	w.mu.Unlock()
	return w.recordSkipped(ctx, w.roll, damaged)
}

// addDamaged adds to the list, once, what cannot be moved.
func (w *deepWork) addDamaged(ctx context.Context, container int64, what string, err error) {
	w.mu.Lock()
	w.containers[container] = true
	known := slices.ContainsFunc(w.damaged, func(d damage) bool { return d.what == what })
	if !known {
		w.damaged = append(w.damaged, damage{what, err})
	}
	w.mu.Unlock()
	if !known {
		w.Logger.WarnContext(ctx, "a roll skips what it cannot move", "roll", w.roll.ID, "what", what, "error", err)
	}
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
	current, refused := r.Policies.LockCurrent(ctx, tx, ro.Tenant, ro.Policy)
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
	_, err := setState(ctx, tx, now, api.RollRunning, api.RollRunning, "", time.Time{})
	return err
}

// handleInterruption handles the error that ended a stage: a roll that was stopped
// is no error, one whose vaults refuse or do not answer waits, and one whose target
// is damaged ends.
func (r *Roller) handleInterruption(ctx context.Context, ro Roll, err error) (waits bool, rest time.Duration, _ error) {
	code := fail.CodeOf(err)
	switch {
	case errors.Is(err, errStopped):
		return false, 0, nil
	case code == api.VaultDenied || code == api.VaultUnavailable || code == api.Unavailable:
		r.Logger.WarnContext(ctx, "a roll waits for a vault", "roll", ro.ID, "error", err)
		waits, recorded := r.recordWait(ctx, ro, "waits: "+err.Error())
		return waits, fail.RetryAfter(err), recorded
	case code == api.Damaged:
		_, err = r.finishIfDone(ctx, ro, outcome{damaged: []damage{{fmt.Sprintf("the target of roll %d", ro.ID), err}}})
	}
	return false, 0, err
}

// NewestWatermark returns the highest watermark of any roll, 0 if there is none.
func NewestWatermark(ctx context.Context, tx *store.Tx) (mark int64, err error) {
	return mark, tx.QueryRow(ctx, `SELECT COALESCE(MAX(mark), 0) FROM roll`).Scan(&mark)
}

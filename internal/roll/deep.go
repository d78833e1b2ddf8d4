package roll

import (
	"context"
	"slices"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
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

// countDeepWork counts the blob keys and bytes that the deep stages of a roll have
// to process.
func (r *Roller) countDeepWork(ctx context.Context, tx *store.Tx, ro Roll, sc Scope) (work Done, err error) {
	for _, stage := range ro.deepStages() {
		n, err := r.config.Deep.Size(ctx, tx, stage, sc)
		if err != nil {
			return Done{}, err
		}
		switch stage {
		case api.StageContainer:
			work.Blobs = n
		case api.StageContent:
			work.Bytes = n
		}
	}
	return work, nil
}

// runDeepStages runs the stages below policy keys once stage policy is finished,
// and ends the roll. damaged is what stage policy could not move.
func (r *Roller) runDeepStages(ctx context.Context, ro Roll, damaged []damage) (result, error) {
	target, stopped, err := r.currentTarget(ctx, ro)
	if err != nil || stopped {
		return result{}, err
	}
	store.PastID(ro.Watermark)
	w := &deepWork{Roller: r, roll: ro, scope: ro.targetScope(target), damaged: damaged, containers: map[int64]bool{}}
	for _, stage := range ro.deepStages() {
		if err := w.runStage(ctx, stage); err != nil {
			return r.handleInterruption(ctx, ro, err)
		}
	}
	ended, err := r.finishIfDone(ctx, ro, outcome{damaged: w.damaged, deepWorkRemains: w.workRemains})
	// If it has not ended, a container with an older key was added meanwhile.
	return result{waits: err == nil && !ended}, err
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
	looked := w.config.Now()
	for idle := 0; ; {
		did, err := w.config.Deep.Work(ctx, w.share(ctx, stage, m))
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
		if now := w.config.Now(); now.Sub(looked) >= rateWindow {
			looked = now
			if err := w.warnIfLate(ctx, w.roll); err != nil {
				return err
			}
		}
		if did {
			idle = 0
			continue
		}
		if idle++; w.config.Leases == nil && idle > maxIdleRounds {
			return fail.New(api.Damaged, "container %d is not moved, and no error explains it", left[0])
		}
		if err := pause(ctx, idlePause); err != nil {
			return err
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
	err = w.config.DB.View(ctx, func(tx *store.Tx) (err error) {
		left, err = w.remainingIn(ctx, tx, stage)
		return err
	})
	return left, err
}

func (w *deepWork) remainingIn(ctx context.Context, tx *store.Tx, stage api.RollStage) ([]int64, error) {
	w.mu.Lock()
	skipped := len(w.containers)
	w.mu.Unlock()
	left, err := w.config.Deep.Remaining(ctx, tx, stage, w.scope, skipped+1)
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
	var work Done
	ro := w.roll
	err := w.config.DB.View(ctx, func(tx *store.Tx) error {
		now, err := byID(ctx, tx, ro.Tenant, ro.ID)
		if err == nil && now.Stage == "" {
			work, err = w.countDeepWork(ctx, tx, ro, w.scope)
		}
		return err
	})
	if err != nil {
		return err
	}
	return w.config.DB.InTx(ctx, func(tx *store.Tx) error { return enterStage(ctx, tx, ro, stage, work) })
}

func (w *deepWork) share(ctx context.Context, stage api.RollStage, m *meter) Share {
	ro := w.roll
	stages := ro.deepStages()
	return Share{Scope: w.scope, Stage: stage, Node: w.config.Leases.Holder(), Counts: stage == stages[len(stages)-1],
		AtOnce: w.containersAtOnce(ro), Limited: w.config.Limit != nil || ro.ContainersPerSecond > 0,
		LockRunning: func(tx *store.Tx) error {
			now, err := w.lockRunning(ctx, tx, ro)
			if err != nil {
				return err
			}
			if err := recordProgress(ctx, tx, now, progress{moved: true}, w.config.Now()); err != nil { // from here on it cannot be cancelled
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
				m.add(w.config.Now(), d.Blobs)
			case api.StageContent:
				m.add(w.config.Now(), d.Bytes)
			}
			return recordDeepProgress(ctx, tx, ro, d, w.config.Now())
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
		w.config.Logger.WarnContext(ctx, "a roll skips what it cannot move", "roll", w.roll.ID, "what", what, "error", err)
	}
}

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

// Deep does what a roll does below policy keys: it knows containers and content,
// which this room does not.
type Deep interface {
	// Size counts what a stage does of a scope: blob keys, or bytes of content.
	Size(ctx context.Context, tx *store.Tx, stage api.RollStage, sc Scope) (int64, error)
	// Left returns up to limit containers of a scope of which a stage has
	// something to do.
	Left(ctx context.Context, tx *store.Tx, stage api.RollStage, sc Scope, limit int) ([]int64, error)
	// Work goes once over the containers of a scope, does of a stage what no other
	// node does, and reports whether that was anything.
	Work(ctx context.Context, s Share) (did bool, err error)
}

// Scope is what a roll reaches: the containers whose keys stand under some policy
// keys in pages of some classes. Keys that are older than Watermark are replaced.
type Scope struct {
	Tenant    int64
	Parents   []keypage.Parent
	Classes   []envelope.Class
	Watermark int64
}

// Share is what a node does of a stage, and how.
type Share struct {
	Scope
	Stage api.RollStage
	// Node names the node to others; it is empty when there are none.
	Node string
	// AtOnce bounds the containers that are taken at a time.
	AtOnce int
	// Limited says that the containers a second are limited: there is no hurry.
	Limited bool
	// Counts says that a container of which this stage has nothing left is done.
	Counts bool
	// Hold begins each transaction, and fails when the roll has been stopped.
	Hold func(tx *store.Tx) error
	// Slow waits until the rate limits allow so much.
	Slow func(ctx context.Context, containers, bytes int64) error
	// Done notes in each transaction what it did.
	Done func(tx *store.Tx, d Done) error
	// Skip is told of what of a container cannot be brought over, and why.
	Skip func(container int64, what string, err error)
}

// Done is what a transaction of a stage did.
type Done struct {
	Containers, Blobs, Bytes int64
}

// deep says whether a roll has stages below policy keys, and which.
func (r Roll) deep() []api.RollStage {
	switch r.Depth {
	case api.DepthContainer:
		return []api.RollStage{api.StageContainer}
	case api.DepthContent:
		return []api.RollStage{api.StageContainer, api.StageContent}
	}
	return nil
}

// changing are those of some classes whose containers a roll reaches below policy
// keys. A backup is frozen: its key comes under another policy key, and stays.
func changing(classes []envelope.Class) []envelope.Class {
	return slices.DeleteFunc(slices.Clone(classes), func(c envelope.Class) bool { return c == envelope.ClassBackup })
}

// older are the classes of the keys that containers of some classes had before a
// roll gave them new ones. They move with them.
func older(classes []envelope.Class) (all []envelope.Class) {
	for _, c := range changing(classes) {
		all = append(all, c.Older())
	}
	return all
}

// scope is what a roll reaches below some policy keys.
func (r Roll) scope(parents []keypage.Parent) Scope {
	return Scope{Tenant: r.Tenant, Parents: parents, Classes: changing(r.Classes), Watermark: r.Watermark}
}

// size counts what a roll does below policy keys.
func (r *Roller) size(ctx context.Context, tx *store.Tx, ro Roll, sc Scope) (blobs, bytes int64, err error) {
	for _, stage := range ro.deep() {
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

// deeply runs the stages below policy keys after that one is through, and ends
// the roll. What the stage before could not bring over is in damaged.
func (r *Roller) deeply(ctx context.Context, ro Roll, damaged []damage) (waits bool, rest time.Duration, err error) {
	target, stopped, err := r.standing(ctx, ro)
	if err != nil || stopped {
		return false, 0, err
	}
	store.PastID(ro.Watermark)
	w := &deepWork{Roller: r, roll: ro, damaged: damaged, containers: map[int64]bool{},
		scope: ro.scope([]keypage.Parent{{ID: target.ID, Generation: target.Generation}})}
	for _, stage := range ro.deep() {
		if err := w.stage(ctx, stage); err != nil {
			return r.interrupted(ctx, ro, err)
		}
	}
	ended, err := r.finish(ctx, ro, outcome{damaged: w.damaged, behind: w.behind})
	if err == nil && !ended { // a container came meanwhile, with an older key
		return true, 0, nil
	}
	return false, 0, err
}

// standing returns the policy key that a roll brings containers to, and whether
// the roll has been stopped.
func (r *Roller) standing(ctx context.Context, ro Roll) (target policy.KeyRow, stopped bool, err error) {
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
	containers map[int64]bool // of which something was skipped
}

// restFor is how long a node waits when all that is left is in the hands of
// others.
const restFor = 500 * time.Millisecond

// mostIdle bounds how often a node that is alone goes over a stage in which
// nothing changes any more.
const mostIdle = 20

// stage works on a stage until nothing is left of it but what was skipped.
func (w *deepWork) stage(ctx context.Context, stage api.RollStage) error {
	if err := w.enter(ctx, stage); err != nil {
		return err
	}
	m := w.meter(w.roll.ID)
	looked := w.Now()
	for idle := 0; ; {
		did, err := w.Deep.Work(ctx, w.share(ctx, stage, m))
		if noted := w.note(ctx); err == nil {
			err = noted
		}
		if err != nil {
			return err
		}
		left, err := w.left(ctx, stage)
		if err != nil || len(left) == 0 {
			return err
		}
		if now := w.Now(); now.Sub(looked) >= rateWindow {
			looked = now
			if err := w.warnLate(ctx, w.roll); err != nil {
				return err
			}
		}
		if did {
			idle = 0
			continue
		}
		if idle++; w.Leases == nil && idle > mostIdle {
			return fail.New(api.Damaged, "container %d is not moved, and no error explains it", left[0])
		}
		select {
		case <-time.After(restFor):
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, stopped, err := w.standing(ctx, w.roll); err != nil {
			return err
		} else if stopped {
			return errStopped
		}
	}
}

// left returns some of the containers that a stage has yet to bring over and that
// are not among those of which something was skipped.
func (w *deepWork) left(ctx context.Context, stage api.RollStage) (left []int64, err error) {
	err = w.DB.View(ctx, func(tx *store.Tx) (err error) {
		left, err = w.leftIn(ctx, tx, stage)
		return err
	})
	return left, err
}

func (w *deepWork) leftIn(ctx context.Context, tx *store.Tx, stage api.RollStage) ([]int64, error) {
	w.mu.Lock()
	skipped := len(w.containers)
	w.mu.Unlock()
	left, err := w.Deep.Left(ctx, tx, stage, w.scope, skipped+1)
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(left, func(id int64) bool { return w.containers[id] }), err
}

// behind says whether a stage has something left to do after all: a container
// may have been assigned to the policy, or restored, behind the stage's back.
func (w *deepWork) behind(ctx context.Context, tx *store.Tx) (bool, error) {
	for _, stage := range w.roll.deep() {
		if left, err := w.leftIn(ctx, tx, stage); err != nil || len(left) > 0 {
			return true, err
		}
	}
	return false, nil
}

// enter notes which stage a roll has come to, and once how much there is to do.
func (w *deepWork) enter(ctx context.Context, stage api.RollStage) error {
	var blobs, bytes int64
	ro := w.roll
	err := w.DB.View(ctx, func(tx *store.Tx) error {
		now, err := byID(ctx, tx, ro.Tenant, ro.ID)
		if err == nil && now.Stage == "" {
			blobs, bytes, err = w.size(ctx, tx, ro, w.scope)
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
	deep := ro.deep()
	return Share{Scope: w.scope, Stage: stage, Node: w.Leases.Holder(), Counts: stage == deep[len(deep)-1],
		AtOnce: w.containersAtOnce(ro), Limited: w.Limit != nil || ro.ContainersPerSecond > 0,
		Hold: func(tx *store.Tx) error {
			now, err := w.hold(ctx, tx, ro)
			if err != nil {
				return err
			}
			if err := did(ctx, tx, now, true, 0, w.Now()); err != nil { // too late to cancel it
				return err
			}
			return w.goesOn(ctx, tx, now)
		},
		Slow: func(ctx context.Context, containers, bytes int64) error { return w.slow(ctx, ro, containers, bytes) },
		Done: func(tx *store.Tx, d Done) error {
			switch stage {
			case api.StageContainer:
				m.add(w.Now(), d.Blobs)
			case api.StageContent:
				m.add(w.Now(), d.Bytes)
			}
			return didDeep(ctx, tx, ro, d, w.Now())
		},
		Skip: func(container int64, what string, err error) { w.leave(ctx, container, what, err) }}
}

// note writes down what was skipped. It is no part of leave, which may be called
// within a transaction.
func (w *deepWork) note(ctx context.Context) error {
	w.mu.Lock()
	met := slices.Clone(w.damaged)
	w.mu.Unlock()
	return w.skip(ctx, w.roll, met)
}

// leave keeps what cannot be brought over, once.
func (w *deepWork) leave(ctx context.Context, container int64, what string, err error) {
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

// hold begins a transaction that brings something over: it holds off a change of
// the policy and says whether the roll still runs.
func (r *Roller) hold(ctx context.Context, tx *store.Tx, ro Roll) (now Roll, err error) {
	if ro.Source != 0 { // its purge must not come between
		if err := tx.Lock(ctx, ro.Source, false); err != nil {
			return now, err
		}
	}
	current, refused := r.Policies.LockCurrent(ctx, tx, ro.Tenant, ro.Policy)
	now, err = byID(ctx, tx, ro.Tenant, ro.ID)
	switch {
	case err != nil:
		return now, err
	case now.State != api.RollRunning: // a policy that was left takes nothing in
		return now, errStopped
	case refused != nil:
		return now, refused
	case current.ID != ro.Target:
		return now, errStopped
	}
	return now, nil
}

// goesOn takes back what a roll said it waits for.
func (r *Roller) goesOn(ctx context.Context, tx *store.Tx, now Roll) error {
	if now.Message == "" {
		return nil
	}
	_, err := setState(ctx, tx, now, api.RollRunning, api.RollRunning, "", time.Time{})
	return err
}

// interrupted says what follows from an error that ended a stage: a roll that was
// stopped is let go, one whose vaults refuse or do not answer waits.
func (r *Roller) interrupted(ctx context.Context, ro Roll, err error) (waits bool, rest time.Duration, _ error) {
	code := fail.CodeOf(err)
	switch {
	case errors.Is(err, errStopped):
		return false, 0, nil
	case code == api.VaultDenied || code == api.VaultUnavailable || code == api.Unavailable:
		r.Logger.WarnContext(ctx, "a roll waits for a vault", "roll", ro.ID, "error", err)
		waits, noted := r.waiting(ctx, ro, "waits: "+err.Error())
		return waits, fail.RetryAfter(err), noted
	case code == api.Damaged:
		_, err = r.finish(ctx, ro, outcome{damaged: []damage{{fmt.Sprintf("what roll %d brings containers to", ro.ID), err}}})
	}
	return false, 0, err
}

// NewestWatermark returns the highest mark of a roll, 0 if there is none.
func NewestWatermark(ctx context.Context, tx *store.Tx) (mark int64, err error) {
	return mark, tx.QueryRow(ctx, `SELECT COALESCE(MAX(mark), 0) FROM roll`).Scan(&mark)
}

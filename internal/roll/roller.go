package roll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/lease"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// Config is what a Roller works with.
type Config struct {
	DB       *store.DB
	Policies *policy.Policies
	// Reseal re-encrypts one page body under another policy key; default:
	// envelope.ResealInPlace. It may return body or change it. A benchmark leaves the
	// cryptography out to measure the rest.
	Reseal func(from, to *envelope.Key, old, next envelope.EncryptionContext, body []byte) ([]byte, error)
	// Limit bounds the containers a second of all rolls on this node; nil means
	// no limit. A roll's own limits apply as well, and are shared by its nodes.
	Limit *rate.Limiter
	// Deep runs the stages below policy keys; nil: they have no work.
	Deep Deep
	// Leases are those of this node; nil means that it is the only node.
	Leases *lease.Leases
	// Settled is called after a roll ended, with each policy whose containers it
	// moved. Rolls run in parallel, so several calls may run at once.
	Settled func(tenant, policy int64)
	Now     func() time.Time
	Logger  *slog.Logger // nil: nothing is logged
}

// Roller runs the rolls that are in state running, several in parallel.
type Roller struct {
	Config
	wake chan struct{}

	mu       sync.Mutex
	rates    map[int64]*meter
	observed map[int64]*observedRate
	paces    map[int64]*pace
}

// New returns a roller; Run starts it.
func New(c Config) *Roller {
	if c.Reseal == nil {
		c.Reseal = envelope.ResealInPlace
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Roller{Config: c, wake: make(chan struct{}, 1), rates: map[int64]*meter{}, observed: map[int64]*observedRate{}, paces: map[int64]*pace{}}
}

// Wake makes Run look for rolls at once.
func (r *Roller) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

const (
	// maxRetryWait bounds the time between two tries of a roll whose vaults do not answer.
	maxRetryWait = 30 * time.Second
	// maxRetryAfter bounds the wait that a vault may ask for: a header must not stop
	// a roll for years.
	maxRetryAfter = 10 * time.Minute
	// maxParallel bounds the rolls that run in parallel, so that a large tenant's roll
	// does not delay a small one's.
	maxParallel = 4
	// pollInterval is how often a node looks for rolls that another one began or left
	// unfinished.
	pollInterval = time.Second
)

// Run runs rolls until ctx is done. It continues every roll that was running when
// the process before it ended, and looks for rolls that other nodes began, or left
// unfinished because they died.
func (r *Roller) Run(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	free := make(chan struct{}, maxParallel)
	var mu sync.Mutex
	active := map[int64]bool{}
	for {
		running, err := r.running(ctx)
		if err != nil && ctx.Err() == nil {
			r.Logger.ErrorContext(ctx, "running rolls could not be listed", "error", err)
		}
		for _, ro := range running {
			mu.Lock()
			known := active[ro.ID]
			active[ro.ID] = true
			mu.Unlock()
			if known {
				continue
			}
			workers.Go(func() {
				here := r.retryLoop(ctx, ro, free)
				mu.Lock()
				delete(active, ro.ID)
				mu.Unlock()
				if here {
					r.Wake() // it may have been resumed just before
				}
			})
		}
		var retry <-chan time.Time
		switch {
		case r.Leases != nil:
			retry = time.After(pollInterval)
		case err != nil:
			retry = time.After(maxRetryWait)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-retry:
		}
	}
}

func (r *Roller) running(ctx context.Context) (running []Roll, err error) {
	err = r.DB.View(ctx, func(tx *store.Tx) error {
		running, err = query(ctx, tx, `state = ?1 ORDER BY id`, string(api.RollRunning))
		return err
	})
	return running, err
}

// retryLoop works on one roll until it ends. While the roll waits, it pauses for
// growing times, or as long as a vault asks for. It reports false when another node
// works on the roll.
func (r *Roller) retryLoop(ctx context.Context, ro Roll, free chan struct{}) (here bool) {
	for wait := time.Second; ; wait = min(2*wait, maxRetryWait) {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return true
		}
		waits, retryAfter, err := r.runExclusive(ctx, ro)
		<-free
		if errors.Is(err, errOtherNode) {
			return false
		}
		if err != nil && ctx.Err() == nil {
			r.Logger.ErrorContext(ctx, "a roll could not be worked on; it is tried again", "roll", ro.ID, "error", err)
			r.recordBlocked(ctx, ro, err)
			waits = true
		}
		if !waits {
			return true
		}
		select {
		case <-time.After(max(wait, min(retryAfter, maxRetryAfter))):
		case <-ctx.Done():
			return true
		}
	}
}

// Work runs one roll to its end, or reports that it waits for a vault. It fails if
// another node works on the roll.
func (r *Roller) Work(ctx context.Context, ro Roll) (waits bool, err error) {
	waits, _, err = r.runExclusive(ctx, ro)
	return waits, err
}

// runExclusive is Work; it also returns how long a vault asked to wait. Stage policy
// is run by one node; the stages below it are shared by all nodes.
func (r *Roller) runExclusive(ctx context.Context, ro Roll) (waits bool, rest time.Duration, err error) {
	ctx = audit.WithOrigin(ctx, audit.Origin{Operation: ro.job(), Request: fmt.Sprintf("roll %d", ro.ID)})
	defer func() { r.forget(ro.ID, waits || err != nil) }()
	var through bool
	var damaged []damage
	err = leaseResult(r.Leases.Hold(ctx, leaseName(ro.ID), func(ctx context.Context) (err error) {
		through, damaged, waits, rest, err = r.runPolicyStage(ctx, ro)
		return err
	}))
	if err != nil || !through {
		return waits, rest, err
	}
	err = leaseResult(r.Leases.Hold(ctx, deepLeasePrefix(ro.ID)+r.Leases.Holder(), func(ctx context.Context) (err error) {
		waits, rest, err = r.runDeepStages(ctx, ro, damaged)
		return err
	}))
	return waits, rest, err
}

// job names the roll in the audit log.
func (ro Roll) job() string {
	if ro.Source != 0 {
		return policy.JobReassign
	}
	return policy.JobRoll
}

// initiator returns on whose behalf the roll opens the keys that it moves containers
// from. A roll is work for users and stops on revocation, except for one that moves
// containers from another policy, which is the documented recovery from lost keys.
func (ro Roll) initiator() policy.Initiator {
	if ro.Source != 0 {
		return policy.Recovery
	}
	return policy.User
}

// runPolicyStage runs stage policy. It ends the roll, or reports that the stage is
// through and returns what could not be moved.
func (r *Roller) runPolicyStage(ctx context.Context, ro Roll) (through bool, damaged []damage, waits bool, rest time.Duration, err error) {
	m := r.meter(ro.ID)
	looked := r.Now()
	for {
		if err := r.warnIfLate(ctx, ro); err != nil {
			return false, nil, false, 0, err
		}
		out, err := r.pass(ctx, ro, func(n int64) error {
			now := r.Now()
			m.add(now, n)
			if now.Sub(looked) < rateWindow {
				return nil
			}
			looked = now
			return r.warnIfLate(ctx, ro)
		})
		switch {
		case err != nil && fail.CodeOf(err) == api.Damaged: // the target
			out.damaged = append(out.damaged, damage{fmt.Sprintf("policy key %d", ro.Target), err})
		case err != nil:
			waits, rest, err = r.handleInterruption(ctx, ro, err)
			return false, nil, waits, rest, err
		}
		if err := r.recordSkipped(ctx, ro, out.damaged); err != nil {
			return false, nil, false, 0, err
		}
		ended, through, err := r.finishPolicyStage(ctx, ro, out)
		if err != nil || ended || through {
			return through, out.damaged, false, 0, err
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
	err = r.DB.InTx(ctx, func(tx *store.Tx) error {
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
	return countUnderOlderKeys(ctx, tx, r.Policies, ro, slices.Concat(ro.Classes, olderClasses(ro.Classes)))
}

// recordWait records why a roll waits, and counts the wait. The roll stays running,
// unless another request ended or paused it meanwhile.
func (r *Roller) recordWait(ctx context.Context, ro Roll, why string) (waits bool, err error) {
	err = lease.InTx(ctx, r.DB, func(tx *store.Tx) error {
		if waits, err = setState(ctx, tx, ro, api.RollRunning, api.RollRunning, why, time.Time{}); err != nil || !waits {
			return err
		}
		return recordProgress(ctx, tx, ro, false, 1, r.Now())
	})
	return waits, err
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
	err = lease.InTx(ctx, r.DB, func(tx *store.Tx) error {
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
		first, err := setState(ctx, tx, ro, api.RollRunning, state, message, r.Now())
		if err != nil || !first || state != api.RollFinished { // another node may have ended it; what that one skipped must stay
			return err
		}
		return deleteSkipped(ctx, tx, ro)
	})
	if err == nil && ended {
		fault.Point("roll.after-finish")
		r.Settled(ro.Tenant, ro.Policy)
		if ro.Source != 0 {
			r.Settled(ro.Tenant, ro.Source)
		}
	}
	return ended, err
}

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
	// Reseal brings one page body from one policy key to another; nil means
	// envelope.Reseal. A benchmark leaves the cryptography out to measure the rest.
	Reseal func(from, to *envelope.Key, old, next envelope.Place, body []byte) ([]byte, error)
	// Limit bounds the containers a second of all rolls on this node; nil means
	// no limit. A roll's own limits come on top, and are shared by its nodes.
	Limit *rate.Limiter
	// Deep does the stages below policy keys; nil: there is none to do.
	Deep Deep
	// Leases are those of this node; nil means that there is but this one.
	Leases *lease.Leases
	// Settled is called after a roll ended, with the policies that containers
	// left. Rolls work side by side, so several calls may run at once.
	Settled func(tenant, policy int64)
	Now     func() time.Time
	Logger  *slog.Logger // nil: nothing is logged
}

// Roller works running rolls off, one after the other.
type Roller struct {
	Config
	wake chan struct{}

	mu      sync.Mutex
	rates   map[int64]*meter
	watched map[int64]*watched
	paces   map[int64]*pace
}

// New returns a roller; Run starts it.
func New(c Config) *Roller {
	if c.Reseal == nil {
		c.Reseal = envelope.Reseal
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Roller{Config: c, wake: make(chan struct{}, 1), rates: map[int64]*meter{}, watched: map[int64]*watched{}, paces: map[int64]*pace{}}
}

// Wake makes Run look for rolls at once.
func (r *Roller) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

const (
	// longestWait bounds the time between two tries of a roll whose vaults do not answer.
	longestWait = 30 * time.Second
	// longestRest bounds how long a vault that asks to be left alone is: a roll
	// must not stand still for years because somebody wrote so in a header.
	longestRest = 10 * time.Minute
	// atOnce bounds the rolls that are worked on side by side, so that a large
	// tenant's roll does not hold up a small one's.
	atOnce = 4
	// lookEvery is how often a node looks for rolls that another one began or left.
	lookEvery = time.Second
)

// Run works until ctx is done. It takes up whatever roll was running when the
// process before it ended, and looks for rolls that other nodes began, or left
// because they died.
func (r *Roller) Run(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	free := make(chan struct{}, atOnce)
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
				here := r.tend(ctx, ro, free)
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
			retry = time.After(lookEvery)
		case err != nil:
			retry = time.After(longestWait)
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

// tend works on one roll until it ends, with growing pauses while it waits, and
// with such as a vault asks for. It reports false when another node works on it.
func (r *Roller) tend(ctx context.Context, ro Roll, free chan struct{}) (here bool) {
	for wait := time.Second; ; wait = min(2*wait, longestWait) {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return true
		}
		waits, rest, err := r.workAlone(ctx, ro)
		<-free
		if errors.Is(err, errElsewhere) {
			return false
		}
		if err != nil && ctx.Err() == nil {
			r.Logger.ErrorContext(ctx, "a roll could not be worked on; it is tried again", "roll", ro.ID, "error", err)
			r.held(ctx, ro, err)
			waits = true
		}
		if !waits {
			return true
		}
		select {
		case <-time.After(max(wait, min(rest, longestRest))):
		case <-ctx.Done():
			return true
		}
	}
}

// Work brings one roll to its end, or reports that it waits for a vault. One node
// at a time works on a roll.
func (r *Roller) Work(ctx context.Context, ro Roll) (waits bool, err error) {
	waits, _, err = r.workAlone(ctx, ro)
	return waits, err
}

// workAlone is Work, and says how long a vault asks to be left alone. One node
// brings container keys over; the stages below are shared.
func (r *Roller) workAlone(ctx context.Context, ro Roll) (waits bool, rest time.Duration, err error) {
	ctx = audit.WithOrigin(ctx, audit.Origin{Operation: ro.job(), Request: fmt.Sprintf("roll %d", ro.ID)})
	defer func() { r.forget(ro.ID, waits || err != nil) }()
	var through bool
	var damaged []damage
	err = elsewhere(r.Leases.Hold(ctx, leaseName(ro.ID), func(ctx context.Context) (err error) {
		through, damaged, waits, rest, err = r.work(ctx, ro)
		return err
	}))
	if err != nil || !through {
		return waits, rest, err
	}
	err = elsewhere(r.Leases.Hold(ctx, shareName(ro.ID)+r.Leases.Holder(), func(ctx context.Context) (err error) {
		waits, rest, err = r.deeply(ctx, ro, damaged)
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

// initiator says for whom the roll opens the keys that it moves containers from.
// A roll is work for users and stops on revocation, but for one that brings
// containers from another policy: the documented recovery from lost keys.
func (ro Roll) initiator() policy.Initiator {
	if ro.Source != 0 {
		return policy.Recovery
	}
	return policy.User
}

// work does stage policy: it ends the roll, or reports that the stage is through,
// and what it could not bring over.
func (r *Roller) work(ctx context.Context, ro Roll) (through bool, damaged []damage, waits bool, rest time.Duration, err error) {
	m := r.meter(ro.ID)
	looked := r.Now()
	for {
		if err := r.warnLate(ctx, ro); err != nil {
			return false, nil, false, 0, err
		}
		out, err := r.pass(ctx, ro, func(n int64) error {
			now := r.Now()
			m.add(now, n)
			if now.Sub(looked) < rateWindow {
				return nil
			}
			looked = now
			return r.warnLate(ctx, ro)
		})
		switch {
		case err != nil && fail.CodeOf(err) == api.Damaged: // what it would bring containers to
			out.damaged = append(out.damaged, damage{fmt.Sprintf("policy key %d", ro.Target), err})
		case err != nil:
			waits, rest, err = r.interrupted(ctx, ro, err)
			return false, nil, waits, rest, err
		}
		if err := r.skip(ctx, ro, out.damaged); err != nil {
			return false, nil, false, 0, err
		}
		ended, through, err := r.endPolicy(ctx, ro, out)
		if err != nil || ended || through {
			return through, out.damaged, false, 0, err
		}
	}
}

// endPolicy ends stage policy of a roll that goes deeper, and any other roll, if
// nothing is left of it.
func (r *Roller) endPolicy(ctx context.Context, ro Roll, out outcome) (ended, through bool, err error) {
	if ro.deep() == nil {
		ended, err = r.finish(ctx, ro, out)
		return ended, false, err
	}
	var left int64
	err = r.DB.InTx(ctx, func(tx *store.Tx) error {
		left, err = r.leftUnderOlder(ctx, tx, ro)
		return err
	})
	return false, err == nil && (left == 0 || out.moved == 0 && len(out.damaged) > 0), err
}

// leftUnderOlder counts, under the policy's lock, the keys that still stand under
// an older policy key: no wrap there can come later.
func (r *Roller) leftUnderOlder(ctx context.Context, tx *store.Tx, ro Roll) (int64, error) {
	held := []int64{ro.Policy}
	if ro.Source != 0 {
		held = append(held, ro.Source)
	}
	if err := policy.LockAll(ctx, tx, held...); err != nil {
		return 0, err
	}
	return standing(ctx, tx, r.Policies, ro, slices.Concat(ro.Classes, older(ro.Classes)))
}

// waiting notes why a roll does not move, and counts it; the roll stays running,
// unless somebody ended or paused it meanwhile.
func (r *Roller) waiting(ctx context.Context, ro Roll, why string) (waits bool, err error) {
	err = lease.InTx(ctx, r.DB, func(tx *store.Tx) error {
		if waits, err = setState(ctx, tx, ro, api.RollRunning, api.RollRunning, why, time.Time{}); err != nil || !waits {
			return err
		}
		return did(ctx, tx, ro, false, 1, r.Now())
	})
	return waits, err
}

// failure says what kept a roll from bringing over all that it should.
func (o outcome) failure() string {
	first := fmt.Sprintf("%s cannot be decrypted: %v", o.damaged[0].what, o.damaged[0].err)
	if n := len(o.damaged); n > 1 {
		return fmt.Sprintf("%d objects cannot be decrypted and were skipped; the first: %s", n, first)
	}
	return first
}

// finish ends a roll if nothing is left of it. Whether that is so is a query
// under the policy's lock, so that no wrap under an older key can come later.
func (r *Roller) finish(ctx context.Context, ro Roll, out outcome) (ended bool, err error) {
	fault.Point("roll.before-finish")
	err = lease.InTx(ctx, r.DB, func(tx *store.Tx) error {
		ended = false
		left, err := r.leftUnderOlder(ctx, tx, ro)
		if err != nil {
			return err
		}
		state, message := api.RollFinished, ""
		if left > 0 && (out.moved > 0 || len(out.damaged) == 0) {
			return nil // somebody else's swaps won meanwhile: go over it again
		}
		if out.behind != nil {
			if behind, err := out.behind(ctx, tx); err != nil || behind {
				return err
			}
		}
		if len(out.damaged) > 0 && (left > 0 || ro.deep() != nil) {
			state = api.RollFailed
			message = out.failure()
		}
		ended = true
		first, err := setState(ctx, tx, ro, api.RollRunning, state, message, r.Now())
		if err != nil || !first || state != api.RollFinished { // another node may have ended it, and knows what it skipped
			return err
		}
		return forgetSkipped(ctx, tx, ro)
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

package roll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"keyroll/api"
	"keyroll/internal/audit"
	"keyroll/internal/envelope"
	"keyroll/internal/lease"
	"keyroll/internal/policy"
	"keyroll/internal/retry"
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
	config Config
	wake   chan struct{}

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
	return &Roller{config: c, wake: make(chan struct{}, 1), rates: map[int64]*meter{}, observed: map[int64]*observedRate{}, paces: map[int64]*pace{}}
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

// Run runs rolls until ctx is done, and returns when none is worked on any more. It
// continues every roll that was running when the process before it ended, and looks for
// rolls that other nodes began, or left unfinished because they died.
func (r *Roller) Run(ctx context.Context) {
	w := workers{roller: r, free: make(chan struct{}, maxParallel), active: map[int64]bool{}}
	defer w.running.Wait()
	retry.Loop{Wake: r.wake}.Run(ctx, func(ctx context.Context) retry.Next {
		running, err := r.running(ctx)
		if err != nil && ctx.Err() == nil {
			r.config.Logger.ErrorContext(ctx, "running rolls could not be listed", "error", err)
		}
		for _, ro := range running {
			w.start(ctx, ro)
		}
		switch {
		case r.config.Leases != nil:
			return retry.After(pollInterval)
		case err != nil:
			return retry.After(maxRetryWait)
		}
		return retry.Idle()
	})
}

func (r *Roller) running(ctx context.Context) (running []Roll, err error) {
	err = r.config.DB.View(ctx, func(tx *store.Tx) error {
		running, err = query(ctx, tx, `state = ?1 ORDER BY id`, string(api.RollRunning))
		return err
	})
	return running, err
}

// workers are the goroutines of Run, one for each roll.
type workers struct {
	roller  *Roller
	running sync.WaitGroup
	free    chan struct{} // has an element for each roll that is worked on

	mu     sync.Mutex
	active map[int64]bool
}

// start starts a worker for a roll that has none.
func (w *workers) start(ctx context.Context, ro Roll) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.active[ro.ID] {
		return
	}
	w.active[ro.ID] = true
	w.running.Go(func() {
		here := w.work(ctx, ro)
		w.mu.Lock()
		delete(w.active, ro.ID)
		w.mu.Unlock()
		if here {
			w.roller.Wake() // it may have been resumed just before
		}
	})
}

// work works on one roll until it ends. While the roll waits, it pauses for growing
// times, or as long as a vault asks for. It reports false when another node works on the
// roll.
func (w *workers) work(ctx context.Context, ro Roll) (here bool) {
	here = true
	r := w.roller
	retry.Loop{First: time.Second, Longest: maxRetryWait}.Run(ctx, func(ctx context.Context) retry.Next {
		select {
		case w.free <- struct{}{}:
		case <-ctx.Done():
			return retry.Done()
		}
		res, err := r.runExclusive(ctx, ro)
		<-w.free
		switch {
		case errors.Is(err, errOtherNode):
			here = false
			return retry.Done()
		case err != nil && ctx.Err() == nil:
			r.config.Logger.ErrorContext(ctx, "a roll could not be worked on; it is tried again", "roll", ro.ID, "error", err)
			r.recordBlocked(ctx, ro, err)
		case !res.waits:
			return retry.Done()
		}
		return retry.Blocked(min(res.retryAfter, maxRetryAfter))
	})
	return here
}

// Work runs one roll to its end, or reports that it waits for a vault. It fails if
// another node works on the roll.
func (r *Roller) Work(ctx context.Context, ro Roll) (waits bool, err error) {
	res, err := r.runExclusive(ctx, ro)
	return res.waits, err
}

// runExclusive runs one roll to its end, unless it waits. Stage policy is run by one
// node; the stages below it are shared by all nodes.
func (r *Roller) runExclusive(ctx context.Context, ro Roll) (res result, err error) {
	ctx = audit.WithOrigin(ctx, audit.Origin{Operation: ro.job(), Request: fmt.Sprintf("roll %d", ro.ID)})
	defer func() { r.forget(ro.ID, res.waits || err != nil) }()
	err = leaseResult(r.config.Leases.Hold(ctx, leaseName(ro.ID), func(ctx context.Context) (err error) {
		res, err = r.runPolicyStage(ctx, ro)
		return err
	}))
	if err != nil || !res.through {
		return res, err
	}
	damaged := res.damaged
	res = result{}
	err = leaseResult(r.config.Leases.Hold(ctx, deepLeasePrefix(ro.ID)+r.config.Leases.Holder(), func(ctx context.Context) (err error) {
		res, err = r.runDeepStages(ctx, ro, damaged)
		return err
	}))
	return res, err
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

package node

import (
	"context"
	"sync"
	"time"

	"keyroll/internal/keywork"
)

// workers do the node's background work.
type workers struct {
	base     *foundation
	packages *Packages
	maintain func()          // queues upkeep
	evicted  <-chan struct{} // signals that this node has evicted another one
	ageRoll  *keywork.AvailabilityRoller
	running  sync.WaitGroup
	cancel   context.CancelFunc
}

func newWorkers(f *foundation, id *identity, p *Packages, evicted <-chan struct{}) *workers {
	return &workers{base: f, packages: p, maintain: p.Service.QueueMaintenance, evicted: evicted, cancel: func() {},
		ageRoll: &keywork.AvailabilityRoller{DB: f.db, Policies: p.Policies, Every: f.options.AvailabilityRollEvery, Logger: f.options.Logger, Tenants: func(ctx context.Context) (ids []int64, err error) {
			all, err := id.tenants(ctx)
			for _, t := range all {
				ids = append(ids, t.ID)
			}
			return ids, err
		}}}
}

// run starts the workers.
func (w *workers) run(ctx context.Context) {
	ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	work := []func(context.Context){w.packages.Roller.Run, w.packages.Upkeep.Run, w.packages.Purger.Run, w.packages.Service.Approvals().Run, w.maintainDaily,
		w.daily("availability keys", w.ageRoll.RollDue), w.daily("local wraps", w.packages.Policies.ReplaceVaultMade)}
	if !w.base.options.NoCollect {
		work = append(work, w.collectDaily)
	}
	for _, run := range work {
		w.running.Go(func() { run(ctx) })
	}
}

// daily returns the daily work of that name.
func (w *workers) daily(name string, work func(ctx context.Context) error) func(ctx context.Context) {
	return func(ctx context.Context) {
		keywork.Daily(ctx, keywork.Pass{Name: name, Work: work, Leases: w.base.leases, Logger: w.base.options.Logger})
	}
}

// stop has the workers stop, and wait waits until they have. Both may be called on nil.
func (w *workers) stop() {
	if w != nil {
		w.cancel()
	}
}

func (w *workers) wait() {
	if w != nil {
		w.running.Wait()
	}
}

// maintainDaily queues upkeep once a day, and also when a node was evicted that may not
// have finished its own, until ctx is done.
func (w *workers) maintainDaily(ctx context.Context) {
	const day = 24 * time.Hour
	tick := time.NewTicker(day)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.evicted:
		case <-tick.C:
			if err := w.base.leases.Forget(ctx, day); err != nil && ctx.Err() == nil {
				w.base.options.Logger.WarnContext(ctx, "leases that ended long ago could not be deleted; it will be retried", "error", err)
			}
		}
		w.maintain()
	}
}

// collectCheckEvery is how often a node checks whether the daily collection of blobs is due.
const collectCheckEvery = 10 * time.Minute

// collectDaily collects blobs once a day until ctx is done; only one of several nodes
// does it at a time.
func (w *workers) collectDaily(ctx context.Context) {
	for {
		if _, err := w.base.leases.Hold(ctx, "collect blobs", w.packages.Service.CollectIfDue); err != nil && ctx.Err() == nil {
			w.base.options.Logger.WarnContext(ctx, "the daily collection of blobs failed and will be retried", "after", collectCheckEvery, "error", err)
		}
		select {
		case <-time.After(collectCheckEvery):
		case <-ctx.Done():
			return
		}
	}
}

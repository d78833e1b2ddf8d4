package roll

import (
	"context"
	"fmt"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// Progress returns a roll as the API shows it, with its remaining work, rate and
// ETA.
func (r *Roller) Progress(ctx context.Context, tx *store.Tx, ro Roll) (api.Roll, error) {
	a, err := r.progress(ctx, tx, ro, func(id int64) (policy.Policy, error) { return r.config.Policies.ByID(ctx, tx, ro.Tenant, id) })
	if err == nil {
		err = addSkipped(ctx, tx, ro, &a)
	}
	return a, err
}

// progress is Progress without what the roll skipped; policyOf returns the policies that
// it names.
func (r *Roller) progress(ctx context.Context, tx *store.Tx, ro Roll, policyOf func(id int64) (policy.Policy, error)) (api.Roll, error) {
	pol, err := policyOf(ro.Policy)
	if err != nil {
		return api.Roll{}, err
	}
	a := api.Roll{ID: fmt.Sprint(ro.ID), Policy: pol.Name, PolicyID: pol.GUID.String(), Revision: ro.Revision.String(),
		Depth: ro.Depth, State: ro.State, Total: ro.Total, Started: ro.Started.UTC(), Deadline: ro.Deadline.UTC(), Message: ro.Message,
		BlobsTotal: ro.BlobsTotal, BlobsDone: min(ro.BlobsDone, ro.BlobsTotal), BytesTotal: ro.BytesTotal, BytesDone: min(ro.BytesDone, ro.BytesTotal),
		ContainersPerSecond: ro.ContainersPerSecond, BytesPerSecond: ro.BytesPerSecond, Retries: ro.Retries}
	if ro.Source != 0 {
		source, err := policyOf(ro.Source)
		if err != nil {
			return a, err
		}
		a.Source = source.Name
	}
	if !ro.Finished.IsZero() {
		finished := ro.Finished.UTC()
		a.Finished = &finished
	}
	var under int64 // older policy keys
	if ro.Unfinished() {
		sc, err := ro.scope(ctx, tx, r.config.Policies)
		if err == nil {
			under, err = sc.count(ctx, tx)
		}
		if err != nil {
			return a, err
		}
		if a.Stage = ro.Stage; under > 0 || a.Stage == "" {
			a.Stage = api.StagePolicy
		}
	}
	switch {
	case ro.State == api.RollCancelled: // it moved none, whatever happened to them since
		a.Remaining = ro.Total
	case !ro.Unfinished():
	case ro.deepStages() != nil:
		a.Remaining = max(0, ro.Total-ro.ContainersDone)
	default:
		a.Remaining = under
	}
	a.Done = max(0, a.Total-a.Remaining)
	a.PercentComplete = percent(ro, a)
	if ro.State == api.RollRunning {
		if err := r.addRate(ctx, tx, ro, &a, under); err != nil {
			return a, err
		}
	}
	a.Late = isLate(ro, a.ETASeconds, r.config.Now())
	return a, nil
}

// addRate adds the rate of a running roll in its present stage, of which under is what
// stage policy has left, the time that it needs, and the nodes that work on it.
func (r *Roller) addRate(ctx context.Context, tx *store.Tx, ro Roll, a *api.Roll, under int64) (err error) {
	done, left := a.Done, a.Remaining
	switch {
	case a.Stage == api.StageContainer:
		done, left = a.BlobsDone, a.BlobsTotal-a.BlobsDone
	case a.Stage == api.StageContent:
		done, left = a.BytesDone, a.BytesTotal-a.BytesDone
	case ro.deepStages() != nil:
		done, left = max(0, a.Total-under), under
	}
	a.PerSecond = r.rate(ro.ID)
	if r.config.Leases != nil {
		a.PerSecond = r.observeRate(ro.ID, a.Stage, done)
		if a.Nodes, err = r.nodes(ctx, tx, ro.ID); err != nil {
			return err
		}
	}
	if a.PerSecond > 0 {
		a.ETASeconds = float64(left) / a.PerSecond
	}
	return nil
}

// percent is how much of a roll is done: of containers at depth policy, of blob
// keys at depth container, of bytes at depth content.
func percent(ro Roll, a api.Roll) float64 {
	done, total := a.Done, a.Total
	switch {
	case a.State == api.RollCancelled, a.Remaining == 0:
	case ro.Depth == api.DepthContainer && a.BlobsTotal > 0:
		done, total = a.BlobsDone, a.BlobsTotal
	case ro.Depth == api.DepthContent && a.BytesTotal > 0:
		done, total = a.BytesDone, a.BytesTotal
	}
	if total == 0 || a.Remaining == 0 {
		return 100
	}
	return 100 * float64(done) / float64(total)
}

// rateWindow is the time over which a roll's rate is measured.
const rateWindow = 10 * time.Second

// meter measures the rate of one roll over the last rateWindow, or over the last
// two batches if a rate limit keeps these further apart.
type meter struct {
	mu      sync.Mutex
	samples []sample
}

type sample struct {
	at time.Time
	n  int64
}

func (m *meter) add(at time.Time, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.samples = append(m.samples, sample{at, n})
	m.trim(at)
}

func (m *meter) trim(now time.Time) {
	for len(m.samples) > 2 && now.Sub(m.samples[0].at) > rateWindow {
		m.samples = m.samples[1:]
	}
}

func (m *meter) perSecond(now time.Time) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trim(now)
	if len(m.samples) < 2 {
		return 0
	}
	var n int64
	for _, s := range m.samples[1:] {
		n += s.n
	}
	if d := now.Sub(m.samples[0].at).Seconds(); d > 0 {
		return float64(n) / d
	}
	return 0
}

func (r *Roller) meter(id int64) *meter {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &meter{}
	r.rates[id] = m
	return m
}

// forget deletes the rate of a roll that this node no longer works on and, unless
// the roll is to be retried, its pace.
func (r *Roller) forget(id int64, retried bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rates, id)
	if !retried {
		delete(r.paces, id)
	}
}

func (r *Roller) rate(id int64) float64 {
	r.mu.Lock()
	m := r.rates[id]
	r.mu.Unlock()
	if m == nil {
		return 0
	}
	return m.perSecond(r.config.Now())
}

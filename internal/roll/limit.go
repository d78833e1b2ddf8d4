package roll

import (
	"context"
	"math"
	"sync"
	"time"

	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

// nodeCountTTL is how long a node uses the number of nodes that work on a roll
// before it reads that number again.
const nodeCountTTL = 5 * time.Second

// pace limits the work of one node on one roll to the rate limits of that roll.
// Unused time is not saved up: there is no burst beyond what one call of throttle
// lets through, which is a page, what longestBurst allows, or a piece of content.
type pace struct {
	mu                sync.Mutex
	containers, bytes time.Time // when the next one is allowed
	counted           time.Time // when nodes was read
	nodes             int       // that work on the roll
}

// throttle waits until the limits of the node and of the roll allow so many
// containers and so many bytes of content; the tighter limit wins.
func (r *Roller) throttle(ctx context.Context, ro Roll, containers, bytes int64) error {
	if err := r.throttleNode(ctx, int(containers)); err != nil {
		return err
	}
	if ro.ContainersPerSecond == 0 && ro.BytesPerSecond == 0 {
		return nil
	}
	p := r.pace(ro.ID)
	nodes, err := r.nodeCount(ctx, p, ro)
	if err != nil {
		return err
	}
	now := r.config.Now()
	until := later(p.reserve(&p.containers, now, containers*nodes, ro.ContainersPerSecond), p.reserve(&p.bytes, now, bytes*nodes, ro.BytesPerSecond))
	return pause(ctx, until.Sub(now))
}

// throttleNode waits until the limit of the node allows so many containers.
func (r *Roller) throttleNode(ctx context.Context, containers int) error {
	limit := r.config.Limit
	if limit == nil {
		return nil
	}
	for ; containers > 0; containers -= limit.Burst() {
		now := r.config.Now()
		reserved := limit.ReserveN(now, min(containers, limit.Burst()))
		if err := pause(ctx, reserved.DelayFrom(now)); err != nil {
			reserved.CancelAt(now)
			return err
		}
	}
	return nil
}

// reserve returns the time from which n may be processed, and moves next beyond it.
func (p *pace) reserve(next *time.Time, now time.Time, n, perSecond int64) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := later(*next, now)
	if perSecond > 0 {
		*next = at.Add(time.Duration(float64(n) / float64(perSecond) * float64(time.Second)))
	}
	return at
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// nodeCount returns how many nodes share the roll's rate limits.
func (r *Roller) nodeCount(ctx context.Context, p *pace, ro Roll) (int64, error) {
	p.mu.Lock()
	known, counted := p.nodes, p.counted
	p.mu.Unlock()
	if r.config.Leases == nil || known > 0 && r.config.Now().Sub(counted) < nodeCountTTL {
		return int64(max(known, 1)), nil
	}
	var names []string
	err := r.config.DB.View(ctx, func(tx *store.Tx) (err error) {
		names, err = r.nodes(ctx, tx, ro.ID)
		return err
	})
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes, p.counted = max(len(names), 1), r.config.Now()
	return int64(p.nodes), nil
}

// pace returns the roll's pace. It is kept while the roll waits for a vault, so
// that a wait does not lift the limits.
func (r *Roller) pace(id int64) *pace {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paces[id] == nil {
		r.paces[id] = &pace{}
	}
	return r.paces[id]
}

// longestBurst bounds what a rate limit lets through at once, but never below one
// page. With one transaction for each page a high limit could not be reached.
const longestBurst = 10 * time.Millisecond

// batchSize is how many pages one transaction swaps.
func (r *Roller) batchSize(ro Roll) int {
	return int(min(max(r.burst(ro)/envelope.MaxSlots, 1), batchPages))
}

// maxContainersAtOnce bounds the containers that a deep stage works on at a time.
const maxContainersAtOnce = 128

// containersAtOnce is how many containers a deep stage works on at a time.
func (r *Roller) containersAtOnce(ro Roll) int {
	return int(min(max(r.burst(ro), 1), maxContainersAtOnce))
}

// burst is how many containers a rate limit lets through at once.
func (r *Roller) burst(ro Roll) float64 {
	perSecond := math.Inf(1)
	if r.config.Limit != nil {
		perSecond = float64(r.config.Limit.Limit())
	}
	if ro.ContainersPerSecond > 0 {
		perSecond = min(perSecond, float64(ro.ContainersPerSecond))
	}
	return perSecond * longestBurst.Seconds()
}

package roll

import (
	"context"
	"math"
	"sync"
	"time"

	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

// shareFor is how long a node goes by the number of nodes that it knows to work
// on a roll before it looks again.
const shareFor = 5 * time.Second

// pace holds what one node does of one roll to the rate limits of that roll.
// Time that was not used is not saved up: there is no burst beyond what one call
// of slow lets through: a page, what longestBurst allows, or a piece of content.
type pace struct {
	mu                sync.Mutex
	containers, bytes time.Time // when the next may come
	asked             time.Time // when nodes was
	nodes             int
}

// slow waits until the limits of the node and of the roll allow so many
// containers, and so many bytes of content; the tighter limit wins.
func (r *Roller) slow(ctx context.Context, ro Roll, containers, bytes int64) error {
	if r.Limit != nil {
		for n := int(containers); n > 0; n -= r.Limit.Burst() {
			if err := r.Limit.WaitN(ctx, min(n, r.Limit.Burst())); err != nil {
				return err
			}
		}
	}
	if ro.ContainersPerSecond == 0 && ro.BytesPerSecond == 0 {
		return nil
	}
	p := r.pace(ro.ID)
	nodes, err := r.share(ctx, p, ro)
	if err != nil {
		return err
	}
	until := later(p.take(&p.containers, containers*nodes, ro.ContainersPerSecond), p.take(&p.bytes, bytes*nodes, ro.BytesPerSecond))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(until)):
		return nil
	}
}

// take returns when n may be done, and puts off what comes after it.
func (p *pace) take(next *time.Time, n, perSecond int64) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := later(*next, time.Now())
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

// share returns how many nodes share the roll's rates.
func (r *Roller) share(ctx context.Context, p *pace, ro Roll) (int64, error) {
	p.mu.Lock()
	known, asked := p.nodes, p.asked
	p.mu.Unlock()
	if r.Leases == nil || known > 0 && time.Since(asked) < shareFor {
		return int64(max(known, 1)), nil
	}
	var names []string
	err := r.DB.View(ctx, func(tx *store.Tx) (err error) {
		names, err = r.nodes(ctx, tx, ro.ID)
		return err
	})
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes, p.asked = max(len(names), 1), time.Now()
	return int64(p.nodes), nil
}

// pace returns the roll's pace. It outlives the waits for a vault, so that none
// of them is a way around the limits.
func (r *Roller) pace(id int64) *pace {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paces[id] == nil {
		r.paces[id] = &pace{}
	}
	return r.paces[id]
}

// longestBurst bounds what a rate limit lets through at once, unless that is
// less than a page: a transaction a page could not reach a high limit.
const longestBurst = 10 * time.Millisecond

// batch is how many pages a transaction takes.
func (r *Roller) batch(ro Roll) int {
	return int(min(max(r.burst(ro)/envelope.MaxSlots, 1), batchPages))
}

// mostAtOnce bounds the containers that a deep stage takes at a time.
const mostAtOnce = 128

// containersAtOnce is how many containers a deep stage takes at a time.
func (r *Roller) containersAtOnce(ro Roll) int {
	return int(min(max(r.burst(ro), 1), mostAtOnce))
}

// burst is how many containers a rate limit lets through at once.
func (r *Roller) burst(ro Roll) float64 {
	perSecond := math.Inf(1)
	if r.Limit != nil {
		perSecond = float64(r.Limit.Limit())
	}
	if ro.ContainersPerSecond > 0 {
		perSecond = min(perSecond, float64(ro.ContainersPerSecond))
	}
	return perSecond * longestBurst.Seconds()
}

package roll

import (
	"context"
	"errors"
	"fmt"

	"keyroll/internal/lease"
	"keyroll/internal/store"
)

// errElsewhere says that another node works on a roll.
var errElsewhere = errors.New("roll: another node works on it")

// leaseName is the lease of who works on a roll.
func leaseName(roll int64) string { return fmt.Sprintf("roll/%d", roll) }

// nodes returns the names of the nodes that work on a roll; none where there is
// but one node.
func (r *Roller) nodes(ctx context.Context, tx *store.Tx, roll int64) ([]string, error) {
	live, err := lease.Live(ctx, tx, leaseName(roll))
	if holder, ok := live[""]; ok {
		return []string{holder}, err
	}
	return nil, err
}

// watched is what this node has seen of a roll that any nodes work on.
type watched struct {
	meter
	done int64
}

// mostWatched bounds what is kept of rolls that nobody looks at any more.
const mostWatched = 1000

// watch takes the rate of a roll from how much of it was done whenever somebody
// looked: the nodes that work on it may be others.
func (r *Roller) watch(roll, done int64) float64 {
	now := r.Now()
	r.mu.Lock()
	w := r.watched[roll]
	if w == nil || done < w.done {
		if len(r.watched) >= mostWatched {
			clear(r.watched)
		}
		w = &watched{done: done}
		r.watched[roll] = w
	}
	more := done - w.done
	w.done = done
	r.mu.Unlock()
	w.add(now, more)
	return w.perSecond(now)
}

package roll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/lease"
	"keyroll/internal/store"
)

// errElsewhere says that another node works on a roll.
var errElsewhere = errors.New("roll: another node works on it")

// elsewhere is errElsewhere where a lease was not held to the end of the work
// under it, and the work's own error where it was.
func elsewhere(held bool, err error) error {
	if errors.Is(err, lease.ErrLost) || err == nil && !held {
		return errElsewhere
	}
	return err
}

// leaseName is the lease of who brings the container keys of a roll over.
func leaseName(roll int64) string { return fmt.Sprintf("roll/%d", roll) }

// shareName begins the names of the leases by which nodes show that they work on
// the deep stages of a roll; the rest is the name of the node.
func shareName(roll int64) string { return leaseName(roll) + "/" }

// nodes returns the names of the nodes that work on a roll; none where there is
// but one node.
func (r *Roller) nodes(ctx context.Context, tx *store.Tx, roll int64) ([]string, error) {
	live, err := lease.Live(ctx, tx, leaseName(roll))
	if holder, ok := live[""]; ok {
		return []string{holder}, err
	}
	var names []string
	for rest, holder := range live {
		if strings.HasPrefix(rest, "/") { // and not of another roll
			names = append(names, holder)
		}
	}
	slices.Sort(names)
	return names, err
}

// watched is what this node has seen of a roll that any nodes work on.
type watched struct {
	meter
	stage api.RollStage
	done  int64
}

// mostWatched bounds what is kept of rolls that nobody looks at any more.
const mostWatched = 1000

// watch takes the rate of a roll from how much of it was done whenever somebody
// looked: the nodes that work on it may be others.
func (r *Roller) watch(roll int64, stage api.RollStage, done int64) float64 {
	now := r.Now()
	r.mu.Lock()
	w := r.watched[roll]
	if w == nil || done < w.done || stage != w.stage {
		if len(r.watched) >= mostWatched {
			clear(r.watched)
		}
		w = &watched{stage: stage, done: done}
		r.watched[roll] = w
	}
	more := done - w.done
	w.done = done
	r.mu.Unlock()
	w.add(now, more)
	return w.perSecond(now)
}

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

// errOtherNode says that another node works on a roll.
var errOtherNode = errors.New("roll: another node works on it")

// leaseResult returns errOtherNode if a lease was not held to the end of the work
// under it, and otherwise the error of the work.
func leaseResult(held bool, err error) error {
	if errors.Is(err, lease.ErrLost) || err == nil && !held {
		return errOtherNode
	}
	return err
}

// leaseName is the lease of the node that runs stage policy of a roll.
func leaseName(roll int64) string { return fmt.Sprintf("roll/%d", roll) }

// deepLeasePrefix begins the names of the leases by which nodes show that they work
// on the deep stages of a roll; the rest is the name of the node.
func deepLeasePrefix(roll int64) string { return leaseName(roll) + "/" }

// nodes returns the names of the nodes that work on a roll; none on a single
// node.
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

// observedRate is the rate of a roll as this node derives it from the database;
// other nodes may be doing the work.
type observedRate struct {
	meter
	stage api.RollStage
	done  int64
}

// maxObserved bounds how many rolls' rates are kept in memory.
const maxObserved = 1000

// observeRate returns the rate of a roll from how much of it was done at each call.
// It works where other nodes work on the roll, too.
func (r *Roller) observeRate(roll int64, stage api.RollStage, done int64) float64 {
	now := r.config.Now()
	r.mu.Lock()
	w := r.observed[roll]
	if w == nil || done < w.done || stage != w.stage {
		if len(r.observed) >= maxObserved {
			clear(r.observed)
		}
		w = &observedRate{stage: stage, done: done}
		r.observed[roll] = w
	}
	more := done - w.done
	w.done = done
	r.mu.Unlock()
	w.add(now, more)
	return w.perSecond(now)
}

package store

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// idEpoch is 2025-01-01 00:00 UTC in Unix milliseconds.
const idEpoch = 1735689600000

// idLow is how many low bits of an id count within a millisecond.
const idLow = 22

var (
	lastID atomic.Int64
	// idStart is where this process begins to count in each millisecond. It is
	// drawn once for the process, not in each millisecond: for two nodes that both
	// make ids in bulk, a collision is then decided by one draw and not by a
	// thousand draws a second.
	idStart = rand.Int64N(1 << idLow)
)

// NewID returns a positive id: 41 bits of milliseconds since 2025 (until 2094),
// then 22 bits counted from a random start of this process. Ids of one process
// always grow, also when its clock is set back; ids of two processes order by
// time and collide only if both make one in the same millisecond at the same
// count, which the primary key then refuses.
func NewID() int64 {
	now := max(time.Now().UnixMilli()-idEpoch, 0)<<idLow | idStart
	for {
		last := lastID.Load()
		id := max(now, last+1)
		if lastID.CompareAndSwap(last, id) {
			return id
		}
	}
}

// PastID makes every id that this process makes from now on larger than id, even if
// the clock of the process that made id is ahead.
func PastID(id int64) {
	for {
		last := lastID.Load()
		if last >= id || lastID.CompareAndSwap(last, id) {
			return
		}
	}
}

// IDFrom returns a lower bound of the ids that a process makes while its clock shows t
// or later.
func IDFrom(t time.Time) int64 { return max(t.UnixMilli()-idEpoch, 0) << idLow }

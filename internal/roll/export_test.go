package roll

import "time"

// SharedBy makes a roller assume, as long as a test runs, that so many nodes work on
// a roll.
func (r *Roller) SharedBy(roll int64, nodes int) {
	p := r.pace(roll)
	p.nodes, p.counted = nodes, r.config.Now().Add(24*time.Hour)
}

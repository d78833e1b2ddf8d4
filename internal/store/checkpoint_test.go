package store

import (
	"testing"
	"time"
)

// While nothing waits for the writer the log grows to freePages. After something has
// waited it is copied at sharedPages, but not while something waits.
func TestCheckpointsDependOnWhatWaitsForTheWriter(t *testing.T) {
	c := &checkpoints{}
	now := time.Now()
	for _, step := range []struct {
		name    string
		waiting int64
		pages   int
		after   time.Duration
		due     bool
	}{
		{"nothing waits", 0, freePages - 1, 0, false},
		{"nothing waits, the log is long", 0, freePages, 0, true},
		{"something waits", 1, freePages - 1, 0, false},
		{"something waits, the log is long", 1, freePages, 0, true},
		{"something has waited", 0, sharedPages, 0, true},
		{"something has waited, the log is short", 0, sharedPages - 1, 0, false},
		{"shortly before the end of the time", 0, sharedPages, calmTime - 1, true},
		{"nothing has waited for long", 0, sharedPages, 1, false},
	} {
		c.queue.Store(step.waiting)
		now = now.Add(step.after)
		if due := c.due(step.pages, now); due != step.due {
			t.Errorf("%s: %t", step.name, due)
		}
	}
	c.covered = 3 * freePages // a reader keeps the log from beginning again
	if c.due(4*freePages-1, now) || !c.due(4*freePages, now) {
		t.Error("pages count that were copied before")
	}
	if c.due(freePages-1, now) || !c.due(freePages, now) {
		t.Error("pages of a log that has begun again do not count")
	}
}

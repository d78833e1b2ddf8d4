package store

import (
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// The writer of an SQLite database makes a checkpoint, which copies the write-ahead log
// into the file, in the commit that makes the log long enough. The next transaction
// waits for it, so the length depends on whether transactions wait for the writer:
//
//   - As long as none does, freePages, 16 MiB: fewer checkpoints make a roll faster.
//   - For calmTime after one has waited, sharedPages, 1.6 MiB, so that a checkpoint is
//     short. While one waits, the checkpoint is left to a later commit.
const (
	freePages   = 1000
	sharedPages = 100
	calmTime    = time.Second
)

// checkpoints makes the checkpoints of the one connection that writes.
type checkpoints struct {
	queue atomic.Int64 // transactions that wait for the connection

	calm    time.Time // until then the writer counts as shared
	covered int       // pages of the log that the last checkpoint has copied
}

// due reports whether to make a checkpoint after a commit that left so many pages in
// the log.
func (c *checkpoints) due(pages int, now time.Time) bool {
	waiting := c.queue.Load() > 0
	if waiting {
		c.calm = now.Add(calmTime)
	}
	if pages < c.covered { // the log has begun again
		c.covered = 0
	}
	more := pages - c.covered
	return more >= freePages || more >= sharedPages && !waiting && now.Before(c.calm)
}

// committed is called after each commit. As with SQLite's own checkpoints, a failure is
// not one of the commit, which is on disk: a later commit tries again.
func (c *checkpoints) committed(conn *sqlite3.Conn, schema string, pages int) error {
	if c.due(pages, time.Now()) {
		if _, copied, err := conn.WALCheckpoint(schema, sqlite3.CHECKPOINT_PASSIVE); err == nil {
			c.covered = copied
		}
	}
	return nil
}

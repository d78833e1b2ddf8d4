package store

import (
	"os"
	"path/filepath"
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

// The log of a writer that nothing waits for does not grow much beyond freePages.
func TestLogOfALoneWriterIsCheckpointed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyroll.db")
	db, err := Open(t.Context(), "sqlite://"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const pageSize, pages = 16 << 10, 3 * freePages
	const perCommit = 50
	insert := func(text string, args ...any) {
		err := db.InTx(t.Context(), func(tx *Tx) error { _, err := tx.Exec(t.Context(), text, args...); return err })
		if err != nil {
			t.Fatal(err)
		}
	}
	insert(`CREATE TABLE filler (body BLOB NOT NULL)`)
	for range pages / perCommit {
		insert(`INSERT INTO filler (body) VALUES (?1)`, make([]byte, perCommit*pageSize))
	}
	log, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if log.Size() > (freePages+2*perCommit)*(pageSize+100) {
		t.Errorf("the log has %d bytes after %d pages", log.Size(), pages)
	}
}

package store

import (
	"database/sql"
	"runtime"
)

// Writer returns the pool of read-write transactions.
func (db *DB) Writer() *sql.DB { return db.writer }

// AwaitAppends returns once n calls of Append wait for a transaction.
func AwaitAppends(db *DB, n int) {
	for waiting := 0; waiting != n; runtime.Gosched() {
		db.appends.mu.Lock()
		waiting = len(db.appends.waiting)
		db.appends.mu.Unlock()
	}
}

package store

import (
	"database/sql"
	"runtime"
)

// Writer returns the pool of read-write transactions.
func (db *DB) Writer() *sql.DB { return db.writer }

// AwaitAppends returns once n calls of Append wait for a transaction.
func AwaitAppends(db *DB, n int) {
	for db.appends.Waiting() != n {
		runtime.Gosched()
	}
}

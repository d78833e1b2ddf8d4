package store

import (
	"database/sql"
	"runtime"
)

// Writer returns the pool of read-write transactions.
func (db *DB) Writer() *sql.DB { return db.writer }

// AwaitCommits returns once n calls of CommitShared wait for a transaction.
func AwaitCommits(db *DB, n int) {
	for db.commits.Waiting() != n {
		runtime.Gosched()
	}
}

// AwaitAppends returns once n calls of Append wait for a transaction.
func AwaitAppends(db *DB, n int) {
	for db.appends.Waiting() != n {
		runtime.Gosched()
	}
}

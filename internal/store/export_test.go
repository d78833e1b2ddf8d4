package store

import "database/sql"

// Writer returns the pool of read-write transactions.
func (db *DB) Writer() *sql.DB { return db.writer }

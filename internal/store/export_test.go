package store

import "database/sql"

// Writer is the pool that read-write transactions come from.
func (db *DB) Writer() *sql.DB { return db.writer }

// Package store opens keyroll's database, SQLite or PostgreSQL, and runs
// transactions in it.
//
// The other packages write one SQL text for both: placeholders ?1 ?2 (reused by
// number, never inside a literal), RETURNING, ON CONFLICT, BIGINT, TEXT and ${BLOB}.
// The differences between the databases are in Dialect and in files of their own; this
// package knows nothing of keyroll's domain. After a commit has returned, its changes
// are on disk. A failed statement ends its transaction on both databases, as in
// PostgreSQL. The package never keeps a context and never writes the value of an
// argument into an error. Start reading at InTx.
package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/together"
)

// DB is an open database. Its methods may be called from many goroutines.
type DB struct {
	shown        string // its address without the password
	dialect      *Dialect
	session      string // name of this process's connections; "": no other process has any
	writer       *sql.DB
	reader       *sql.DB                 // the same pool as writer on PostgreSQL
	log          *checkpoints            // of the writer; nil on PostgreSQL
	forMigration func() *sql.DB          // opens a pool with a short lock timeout; nil: the writer changes the schema
	aside        func() *sql.DB          // opens a pool for Aside; nil: no other process uses the database
	singleAside  bool                    // Aside has only one connection
	unindexed    *unindexed              // nil if wrong indexes are not bypassed: on PostgreSQL, and in a move
	appends      *together.Calls[change] // calls of Append
	commits      *together.Calls[change] // calls of CommitShared
	forTests     ForTests
}

// Open opens the database at address, "sqlite:///absolute/path" or
// "postgres://…", and updates its schema. It fails with NewerFormat if the schema is
// newer than this program, and with Conflict if the database was moved elsewhere or is
// the target of an unfinished move; then nothing is changed.
func Open(ctx context.Context, address string) (*DB, error) {
	db, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	if db.dialect.Name == sqlite.Name {
		db.unindexed = &unindexed{}
		err = db.checkSmall(ctx)
	}
	if err == nil {
		err = db.checkNotMoved(ctx)
	}
	if err == nil {
		err = db.updateSchema(ctx)
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

// dial connects to the database at address and changes nothing in it.
func dial(ctx context.Context, address string) (*DB, error) {
	u, err := url.Parse(address)
	if err != nil { // it is dropped, because it has the address with its password
		return nil, fail.New(api.InvalidArgument, "open database: the address is not a URL")
	}
	var db *DB
	switch u.Scheme {
	case "sqlite":
		db, err = openSQLite(u)
	case "postgres", "postgresql":
		db, err = openPostgres(u)
	default:
		return nil, fail.New(api.InvalidArgument, "open database: scheme %q is neither sqlite nor postgres", u.Scheme)
	}
	if err != nil {
		return nil, err
	}
	db.shareTransactions()
	if err = db.writer.PingContext(ctx); err != nil {
		err = db.dialect.openFailure(db.shown, err)
	} else if db.dialect.check != nil {
		err = db.dialect.check(ctx, db)
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

// updateSchema applies new schema files, and turns a failure into one with a hint.
func (db *DB) updateSchema(ctx context.Context) error {
	err := db.migrate(ctx)
	if err == nil {
		return nil
	}
	if classified := db.classify(err); fail.CodeOf(classified) != api.Internal || postgresCode(err) == "" {
		return fmt.Errorf("open database %s: %w", db.shown, classified)
	}
	return db.dialect.openFailure(db.shown, err)
}

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	return db.View(ctx, func(tx *Tx) error {
		var one int64
		return tx.QueryRow(ctx, "SELECT 1").Scan(&one)
	})
}

// Shown is the database's address without its password.
func (db *DB) Shown() string { return db.shown }

// Close waits for running statements and closes all connections.
func (db *DB) Close() error {
	var err error
	if db.reader != db.writer {
		err = db.reader.Close()
	}
	if e := db.writer.Close(); err == nil {
		err = e
	}
	return err
}

// Writers is how many transactions that write much are worth running at a time.
func (db *DB) Writers() int {
	if db.dialect.Name == sqlite.Name {
		return 1
	}
	return postgresWriters
}

// Dialect returns the dialect of the database.
func (db *DB) Dialect() Dialect { return *db.dialect }

// Session returns the name of this DB's connections for Tx.EndSession, if other
// processes may use the database too; otherwise it is empty.
func (db *DB) Session() string { return db.session }

// Aside returns the same database with two connections of its own, for short
// transactions that must not wait for work that occupies all other connections. The
// caller must close it. It may be called only if Session is not empty.
func (db *DB) Aside() *DB {
	aside := *db
	aside.shareTransactions()
	aside.writer = db.aside()
	if db.singleAside {
		aside.writer.SetMaxOpenConns(1)
	}
	aside.reader = aside.writer
	return &aside
}

// A transaction that was aborted in favour of another one is run again at most
// attempts-1 times, after a pause that doubles from firstPause up to longestPause, less
// a random part of up to one half.
const (
	attempts     = 10
	firstPause   = 2 * time.Millisecond
	longestPause = 250 * time.Millisecond
)

// InTx runs fn in a read-write transaction and commits it when fn returns nil;
// an error or a panic of fn, or the end of ctx, rolls it back. On SQLite there
// is one writer at a time (BEGIN IMMEDIATE), so InTx within fn would wait for
// itself; on PostgreSQL the isolation is READ COMMITTED and fn takes the locks
// it needs (Tx.Lock, compare-and-swap). When the database aborts the transaction in
// favour of another one (SQLITE_BUSY, serialization failure, deadlock), fn is run again
// from the start, so it must assign, not add to, the variables that it captures. A
// commit whose answer was lost is an error although it may have succeeded. A database
// that is full, read-only, damaged or unreachable has its own code.
func (db *DB) InTx(ctx context.Context, fn func(tx *Tx) error) error {
	if db.forTests.RunTwice {
		fn = failOnce(fn)
	}
	pause := firstPause
	for try := 1; ; try++ {
		err := db.run(ctx, db.writer, &sql.TxOptions{}, fn)
		switch {
		case err == nil && db.forTests.LoseAnswer != nil && db.forTests.LoseAnswer(ctx):
			return noAnswer().Because(errAnswerLost)
		case err == errRunTwice || db.foundWrongIndex(ctx, err): // the latter once for each table
			continue
		case err == nil || !db.dialect.retryable(err):
			return db.classify(err)
		}
		if try == attempts {
			return fmt.Errorf("transaction aborted %d times: %w", attempts, db.classify(err))
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause - rand.N(pause/2)):
		}
		pause = min(2*pause, longestPause)
	}
}

// View runs fn in a read-only transaction that sees one state of the database,
// the one at its first statement. It never waits for a writer. A View that stays open
// for long lets SQLite's write-ahead log grow. If a statement uses a wrong index, fn is
// run again without the indexes of its tables, so it must assign, not add to, the
// variables that it captures.
func (db *DB) View(ctx context.Context, fn func(tx *Tx) error) error {
	for twice := db.forTests.RunTwice; ; {
		err := db.run(ctx, db.reader, db.viewOptions(), fn)
		switch {
		case db.foundWrongIndex(ctx, err): // once for each table
		case err == nil && twice:
			twice = false
		default:
			return db.classify(err)
		}
	}
}

// ViewOnce is View for a function that passes on what it reads, and so cannot be run
// again. If a statement uses a wrong index, it fails with Damaged; the next transaction
// does not use that index.
func (db *DB) ViewOnce(ctx context.Context, fn func(tx *Tx) error) error {
	err := db.run(ctx, db.reader, db.viewOptions(), fn)
	db.foundWrongIndex(ctx, err)
	return db.classify(err)
}

func (db *DB) viewOptions() *sql.TxOptions {
	return &sql.TxOptions{ReadOnly: true, Isolation: db.dialect.viewLevel}
}

func (db *DB) run(ctx context.Context, pool *sql.DB, options *sql.TxOptions, fn func(tx *Tx) error) (err error) {
	conn, inner, err := db.begin(ctx, pool, options)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer conn.Close()
	// A session that began while the server was read-only may stay read-only: it is
	// closed, so that a later transaction begins a new one.
	defer func() {
		if db.session != "" && db.dialect.failureKind(err) == readOnly {
			_ = conn.Raw(func(any) error { return driver.ErrBadConn })
		}
	}()
	defer inner.Rollback() // no effect after a commit
	tx := &Tx{dialect: db.dialect, conn: conn, tx: inner, readOnly: options.ReadOnly, observe: db.forTests.Observe, unindexed: db.unindexed}
	if tx.observe != nil {
		tx.observe("BEGIN")
	}
	if db.forTests.UseIndexes {
		tx.unindexed = nil
	}
	if err := fn(tx); err != nil {
		if tx.unindexed != nil && db.dialect.failureKind(err) == unsound {
			return unsoundRead{err, tx.last}
		}
		return err
	}
	if tx.failed != nil {
		return fmt.Errorf("commit: a statement of the transaction failed: %w", tx.failed)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := inner.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// begin begins a transaction on a live connection: all connections that were in the
// pool while the server was down are dead, which shows only when they are used.
func (db *DB) begin(ctx context.Context, pool *sql.DB, options *sql.TxOptions) (*sql.Conn, *sql.Tx, error) {
	for left := pool.Stats().MaxOpenConnections; ; left-- {
		conn, err := db.connection(ctx, pool)
		if err != nil {
			return nil, nil, err
		}
		// Only run ends the transaction. If it were bound to ctx, the end of ctx
		// would roll back while fn runs, and later writes of fn would be committed
		// on their own.
		tx, err := conn.BeginTx(context.WithoutCancel(ctx), options)
		if err == nil {
			return conn, tx, nil
		}
		_ = conn.Close()
		if left == 0 || db.dialect.failureKind(err) != unreachable {
			return nil, nil, err
		}
	}
}

// connection returns a connection of a pool. While it waits for the writer of an SQLite
// database, checkpoints are left to later.
func (db *DB) connection(ctx context.Context, pool *sql.DB) (*sql.Conn, error) {
	if db.log != nil && pool == db.writer {
		db.log.queue.Add(1)
		defer db.log.queue.Add(-1)
	}
	return pool.Conn(ctx)
}

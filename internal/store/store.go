// Package store opens keyroll's database, SQLite or PostgreSQL, and runs
// transactions in it.
//
// Rooms write one SQL text for both: placeholders ?1 ?2 (reused by number,
// never inside a literal), RETURNING, ON CONFLICT, BIGINT, TEXT and ${BLOB}.
// What differs between the databases stands in Dialect and in one file each;
// no domain word stands here. A commit that returned is on disk. A statement
// that failed ends its transaction on both databases, as PostgreSQL has it.
// The package never keeps a context and never writes a value of an argument
// into an error. Start reading at InTx.
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
)

// DB is an open database. Its methods may be called from many goroutines.
type DB struct {
	shown        string // its address without what may be a password
	dialect      *Dialect
	session      string // name of this process's connections; "": no other process has any
	writer       *sql.DB
	reader       *sql.DB        // the same pool as writer on PostgreSQL
	forMigration func() *sql.DB // makes a pool that waits for no table for long; nil: the writer changes the schema
	aside        func() *sql.DB // makes a pool for Aside; nil: no other process uses the database
	fewAside     bool           // Aside has one connection
	unindexed    *unindexed     // nil where the database does not skip a wrong index: PostgreSQL, and a move
	forTests     ForTests
}

// Open opens the database at address, "sqlite:///absolute/path" or
// "postgres://…", and brings its schema up to date. A schema newer than this
// program fails NewerFormat, and a database that was moved elsewhere, or into
// which a move has not ended, Conflict; then nothing is changed.
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
		err = db.refuseMoved(ctx)
	}
	if err == nil {
		err = db.bringUpToDate(ctx)
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
	if err != nil { // not shown: it repeats the address, with its password
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

func (db *DB) bringUpToDate(ctx context.Context) error {
	err := db.migrate(ctx)
	if err == nil {
		return nil
	}
	if named := db.named(err); fail.CodeOf(named) != api.Internal || postgresCode(err) == "" {
		return fmt.Errorf("open database %s: %w", db.shown, named)
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

// Shown is the database's address without what may be a password.
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

// Dialect says which database this is.
func (db *DB) Dialect() Dialect { return *db.dialect }

// Session names the connections of this DB to a database that other processes
// may use too, for Tx.EndSession; it is empty where none can.
func (db *DB) Session() string { return db.session }

// Aside returns the same database through two connections of its own, for short
// transactions that must not stand behind work which holds all others and waits.
// The caller closes it. Where Session is empty there is none.
func (db *DB) Aside() *DB {
	aside := *db
	aside.writer = db.aside()
	if db.fewAside {
		aside.writer.SetMaxOpenConns(1)
	}
	aside.reader = aside.writer
	return &aside
}

// A transaction that another one made fail is run again at most attempts-1
// times, after a pause that doubles from firstPause up to longestPause, less a
// random part of up to one half.
const (
	attempts     = 10
	firstPause   = 2 * time.Millisecond
	longestPause = 250 * time.Millisecond
)

// InTx runs fn in a read-write transaction and commits it when fn returns nil;
// an error or a panic of fn, or the end of ctx, rolls it back. On SQLite there
// is one writer at a time (BEGIN IMMEDIATE), so InTx within fn would wait for
// itself; on PostgreSQL the isolation is READ COMMITTED and fn takes the locks
// it needs (Tx.Lock, compare-and-swap). When the database breaks the
// transaction off in favour of another one (SQLITE_BUSY, serialization
// failure, deadlock), fn is run again from the start: it must set, not add to,
// what it captures. A commit whose answer was lost is an error although it may
// have happened. A database that is full, takes no writes, is damaged or does
// not answer is named with its code.
func (db *DB) InTx(ctx context.Context, fn func(tx *Tx) error) error {
	if db.forTests.RunTwice {
		fn = twice(fn)
	}
	pause := firstPause
	for try := 1; ; try++ {
		err := db.run(ctx, db.writer, &sql.TxOptions{}, fn)
		switch {
		case err == nil && db.forTests.LoseAnswer != nil && db.forTests.LoseAnswer(ctx):
			return noAnswer().Because(errAnswerLost)
		case err == errRunTwice || db.foundWrong(ctx, err): // the latter once a table
			continue
		case err == nil || !db.dialect.retryable(err):
			return db.named(err)
		}
		if try == attempts {
			return fmt.Errorf("transaction aborted %d times: %w", attempts, db.named(err))
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
// the one at its first statement. It never waits for a writer. A View left open
// for long lets SQLite's write-ahead log grow. When a statement meets a wrong
// index, fn is run again without the indexes of its tables: it must set, not add
// to, what it captures.
func (db *DB) View(ctx context.Context, fn func(tx *Tx) error) error {
	for twice := db.forTests.RunTwice; ; {
		err := db.run(ctx, db.reader, db.viewOptions(), fn)
		switch {
		case db.foundWrong(ctx, err): // once a table
		case err == nil && twice:
			twice = false
		default:
			return db.named(err)
		}
	}
}

// ViewOnce is View for a function that passes on what it reads, and so cannot be
// run again. When a statement meets a wrong index, it fails with Damaged; the next
// transaction does without that index.
func (db *DB) ViewOnce(ctx context.Context, fn func(tx *Tx) error) error {
	err := db.run(ctx, db.reader, db.viewOptions(), fn)
	db.foundWrong(ctx, err)
	return db.named(err)
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
	// A session that began while the server took no writes may take none ever
	// after: it is closed, so that a later transaction begins a new one.
	defer func() {
		if db.session != "" && db.dialect.trouble(err) == readOnly {
			_ = conn.Raw(func(any) error { return driver.ErrBadConn })
		}
	}()
	defer inner.Rollback() // nothing after a commit
	tx := &Tx{dialect: db.dialect, conn: conn, tx: inner, readOnly: options.ReadOnly, unindexed: db.unindexed}
	if db.forTests.UseIndexes {
		tx.unindexed = nil
	}
	if err := fn(tx); err != nil {
		if tx.unindexed != nil && db.dialect.trouble(err) == unsound {
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

// begin begins a transaction on a connection that is alive: all that stood in
// the pool while the server was away are dead, and each tells so only when it is
// used.
func (db *DB) begin(ctx context.Context, pool *sql.DB, options *sql.TxOptions) (*sql.Conn, *sql.Tx, error) {
	for left := pool.Stats().MaxOpenConnections; ; left-- {
		conn, err := pool.Conn(ctx)
		if err != nil {
			return nil, nil, err
		}
		// Only run ends the transaction: were it bound to ctx, its end would roll
		// back behind fn's back, and what fn still wrote would stand on its own.
		tx, err := conn.BeginTx(context.WithoutCancel(ctx), options)
		if err == nil {
			return conn, tx, nil
		}
		_ = conn.Close()
		if left == 0 || db.dialect.trouble(err) != unreachable {
			return nil, nil, err
		}
	}
}

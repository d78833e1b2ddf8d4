package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// poolConnector opens the connections of a pool. If PostgreSQL has none left, the pool
// is limited to those that it has, and requests wait for one of these. After a while
// the limit is lifted again.
type poolConnector struct {
	driver.Connector
	pool *sql.DB
	max  int // connections of the pool

	mu      sync.Mutex
	opening int // calls of Connect under way
}

// regrowTime is how long a pool is limited to fewer connections.
const regrowTime = time.Minute

// Connect implements driver.Connector. After ErrBadConn database/sql tries again, and
// waits for a connection of the pool if the pool has reached its limit.
func (q *poolConnector) Connect(ctx context.Context) (driver.Conn, error) {
	q.count(1)
	conn, err := q.Connector.Connect(ctx)
	if postgresCode(err) != tooManyConnections {
		q.count(-1)
		return conn, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	stats := q.pool.Stats()
	has := max(fewestConnections, stats.OpenConnections-q.opening)
	q.opening--
	if has < stats.MaxOpenConnections {
		q.pool.SetMaxOpenConns(has)
		time.AfterFunc(regrowTime, func() { q.pool.SetMaxOpenConns(q.max) })
	}
	return nil, fmt.Errorf("%w: %w", driver.ErrBadConn, err)
}

func (q *poolConnector) count(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opening += n
}

// connectionsLeft is how many connections PostgreSQL lets this user open to this
// database, those of session included, at this moment.
const connectionsLeft = `SELECT LEAST(
	current_setting('max_connections')::int - CASE WHEN rolsuper THEN 0 ELSE
		current_setting('superuser_reserved_connections')::int + COALESCE(current_setting('reserved_connections', true), '0')::int END
		- (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND application_name IS DISTINCT FROM $1),
	CASE WHEN rolsuper OR rolconnlimit < 0 THEN 1000000 ELSE rolconnlimit END - (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND application_name IS DISTINCT FROM $1),
	CASE WHEN rolsuper OR datconnlimit < 0 THEN 1000000 ELSE datconnlimit END - (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name IS DISTINCT FROM $1))
	FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()`

// FitConnections limits the node to the connections that PostgreSQL has left for it,
// and logs that: requests then wait for one another. On SQLite it does nothing.
func (db *DB) FitConnections(ctx context.Context, log *slog.Logger) error {
	if db.session == "" {
		return nil
	}
	var left int
	if err := db.writer.QueryRowContext(ctx, connectionsLeft, db.session).Scan(&left); err != nil {
		return fmt.Errorf("open database %s: count its connections: %w", db.shown, db.classify(err))
	}
	wanted := db.writer.Stats().MaxOpenConnections
	if left >= wanted+connectionsAside {
		return nil
	}
	used := max(fewestConnections, left-1)
	db.singleAside = true
	db.writer.SetMaxOpenConns(used)
	log.WarnContext(ctx, "PostgreSQL has few connections left: requests wait for one another", "left", left, "used", used+1, "wanted", wanted+connectionsAside, "least", fewestConnections+1)
	return nil
}

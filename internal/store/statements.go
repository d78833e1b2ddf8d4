package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"strings"

	"github.com/ncruces/go-sqlite3"
)

// keptStatements is how many statements a connection to SQLite keeps prepared. Beyond
// it any of them is closed.
const keptStatements = 128

// preparingConnector opens connections to SQLite that keep their statements prepared
// for the next use. Neither database/sql nor the driver does so for the statements of a
// transaction; pgx does for PostgreSQL. SQLite prepares a kept statement again by itself
// when the schema has changed (sqlite.org/c3ref/prepare.html).
type preparingConnector struct {
	driver.Connector
	opened func(*sqlite3.Conn) // called with each new connection
}

func (c preparingConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	own := conn.(sqliteConn)
	c.opened(own.Raw())
	return &preparingConn{sqliteConn: own, idle: map[string]sqliteStatement{}}, nil
}

// sqliteConn and sqliteStatement are what the driver's types implement.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.NamedValueChecker
	Raw() *sqlite3.Conn
}

type sqliteStatement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
	driver.NamedValueChecker
}

// preparingConn is used by one goroutine at a time, as every driver.Conn.
type preparingConn struct {
	sqliteConn
	idle map[string]sqliteStatement // by their texts
}

func (c *preparingConn) PrepareContext(ctx context.Context, text string) (driver.Stmt, error) {
	if idle, ok := c.idle[text]; ok {
		delete(c.idle, text)
		return &keptStatement{idle, c, text}, nil
	}
	made, err := c.sqliteConn.PrepareContext(ctx, text)
	if err != nil || !isKept(text) {
		return made, err
	}
	return &keptStatement{made.(sqliteStatement), c, text}, nil
}

// isKept reports whether a statement may be kept. Others, such as PRAGMA, may take
// effect when they are prepared.
func isKept(text string) bool {
	for _, verb := range []string{"SELECT ", "INSERT ", "UPDATE ", "DELETE "} {
		if strings.HasPrefix(text, verb) {
			return true
		}
	}
	return false
}

func (c *preparingConn) Close() error {
	var err error
	for _, statement := range c.idle {
		err = errors.Join(err, statement.Close())
	}
	clear(c.idle)
	return errors.Join(err, c.sqliteConn.Close())
}

// keptStatement is a statement in use. The driver resets it and clears its arguments
// after each execution.
type keptStatement struct {
	sqliteStatement
	conn *preparingConn
	text string
}

// Close keeps the statement for its next use.
func (s *keptStatement) Close() error {
	if _, ok := s.conn.idle[s.text]; ok { // it was in use twice at once
		return s.sqliteStatement.Close()
	}
	var err error
	if len(s.conn.idle) >= keptStatements {
		for text, other := range s.conn.idle {
			delete(s.conn.idle, text)
			err = other.Close()
			break
		}
	}
	s.conn.idle[s.text] = s.sqliteStatement
	return err
}

package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// Tx is a running transaction. One goroutine at a time uses it, and only until
// the function that got it returns.
type Tx struct {
	dialect  *Dialect
	conn     *sql.Conn
	tx       *sql.Tx
	readOnly bool
	failed   error // of the first statement that failed

	unindexed *unindexed // nil: all indexes are used
	last      string     // text of the last statement; only where unindexed is set
}

// Exec runs a statement that returns no rows and reports how many it changed.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (rowsAffected int64, err error) {
	text, args, err := tx.prepare(query, args)
	if err != nil {
		return 0, err
	}
	result, err := tx.tx.ExecContext(ctx, text, args...)
	if err != nil {
		return 0, tx.fail(err)
	}
	return result.RowsAffected()
}

// Query runs a statement that returns rows. The caller closes them before the
// next statement of the transaction, and looks at their Err.
func (tx *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	text, args, err := tx.prepare(query, args)
	if err != nil {
		return nil, err
	}
	rows, err := tx.tx.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, tx.fail(err)
	}
	return rows, nil
}

// QueryRow runs a statement that returns at most one row. Errors come from
// Scan: sql.ErrNoRows when there is none.
func (tx *Tx) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	text, args, err := tx.prepare(query, args)
	if err != nil {
		return tx.tx.QueryRowContext(ctx, "SELECT "+tx.dialect.parameter+"1", refusal{err})
	}
	row := tx.tx.QueryRowContext(ctx, text, args...)
	if err := row.Err(); err != nil {
		_ = tx.fail(err)
	}
	return row
}

// Scanner is a row that is read once, of QueryRow or of a query's rows.
type Scanner interface{ Scan(dest ...any) error }

// Collect returns what scan makes of each row of a query, in the query's order.
// No error names the query.
func Collect[T any](ctx context.Context, tx *Tx, scan func(row Scanner) (T, error), query string, args ...any) (all []T, err error) {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		all = append(all, one)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return all, nil
}

// IDs returns the ids that a statement selects or returns, one column of them.
func (tx *Tx) IDs(ctx context.Context, query string, args ...any) (ids []int64, err error) {
	return Collect(ctx, tx, func(row Scanner) (id int64, err error) {
		err = row.Scan(&id)
		return id, err
	}, query, args...)
}

// ExecMany runs one statement for each row of arguments, in their order, and
// reports how many table rows each changed. On the first failure it stops.
func (tx *Tx) ExecMany(ctx context.Context, query string, argRows [][]any) (affected []int64, err error) {
	if len(argRows) == 0 {
		return nil, nil
	}
	var text string
	rows := make([][]any, len(argRows))
	for i, args := range argRows {
		if text, rows[i], err = tx.prepare(query, args); err != nil {
			return nil, err
		}
	}
	affected, err = tx.dialect.execMany(ctx, tx, text, rows)
	if err != nil {
		return nil, tx.fail(err)
	}
	return affected, nil
}

// Lock takes a lock on key until the transaction ends: one holder if exclusive,
// else any number of shared ones. Keys are ids, so two uses of one id exclude
// each other. On SQLite the writer is the lock and Lock does nothing; that
// holds only for a read-write transaction, so a View refuses.
func (tx *Tx) Lock(ctx context.Context, key int64, exclusive bool) error {
	if tx.readOnly {
		return errors.New("lock: a read-only transaction takes no locks")
	}
	statement := tx.dialect.lockShared
	if exclusive {
		statement = tx.dialect.lockExclusive
	}
	if statement == "" {
		return nil
	}
	if _, err := tx.Exec(ctx, statement, key); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

// SkipLocked ends a SELECT of the rows that a statement updates: rows that
// another transaction is changing are passed over instead of waited for. On
// SQLite, where there is one writer, it is empty.
func (tx *Tx) SkipLocked() string { return tx.dialect.skipLocked }

// Clock is an expression of the database's clock when it is evaluated, in Unix
// milliseconds.
func (tx *Tx) Clock() string { return tx.dialect.clock }

// EndSession cuts the connections of another process that DB.Session names: its
// transactions are rolled back, and the locks that they hold are free.
func (tx *Tx) EndSession(ctx context.Context, session string) error {
	if tx.dialect.endSession == "" {
		return nil
	}
	if _, err := tx.Exec(ctx, tx.dialect.endSession, session); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// refusal is an argument that no driver can send: the only way to give a
// sql.Row its error.
type refusal struct{ err error }

func (r refusal) Value() (driver.Value, error) { return nil, r.err }

// prepare returns the text for this database and the arguments as values that
// both drivers take alike; it refuses a transaction that is already lost.
func (tx *Tx) prepare(query string, args []any) (text string, values []any, err error) {
	if tx.failed != nil {
		return "", nil, fmt.Errorf("the transaction cannot go on: an earlier statement failed: %w", tx.failed)
	}
	s, err := tx.dialect.statement(query)
	if err != nil {
		return "", nil, tx.fail(err)
	}
	if len(args) != s.params {
		return "", nil, tx.fail(fmt.Errorf("statement has %d parameters, %d arguments given", s.params, len(args)))
	}
	values = make([]any, len(args))
	for i, arg := range args {
		if values[i], err = plain(arg); err != nil {
			return "", nil, tx.fail(fmt.Errorf("argument %d: %w", i+1, err))
		}
	}
	if tx.unindexed == nil {
		return s.text, values, nil
	}
	tx.last = s.text
	return tx.unindexed.rewrite(s.text), values, nil
}

func (tx *Tx) fail(err error) error {
	if tx.failed == nil {
		tx.failed = err
	}
	return err
}

// plain turns an argument into nil, int64, string or []byte; booleans become 0
// and 1. A nil []byte is NULL, an empty one is an empty blob.
func plain(arg any) (any, error) {
	switch a := arg.(type) {
	case nil, int64, string:
		return a, nil
	case []byte:
		if a == nil {
			return nil, nil
		}
		return a, nil
	case bool:
		if a {
			return int64(1), nil
		}
		return int64(0), nil
	}
	value, err := driver.DefaultParameterConverter.ConvertValue(arg)
	if err != nil {
		return nil, err
	}
	switch value.(type) {
	case nil, int64, string:
		return value, nil
	case []byte, bool:
		return plain(value)
	}
	return nil, fmt.Errorf("type %T has no column type", arg)
}

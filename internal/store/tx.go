package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// Tx is a running transaction. It may be used by one goroutine at a time, and only
// until the function that got it returns.
type Tx struct {
	dialect  *Dialect
	conn     *sql.Conn
	tx       *sql.Tx
	readOnly bool
	failed   error // of the first statement that failed

	observe   func(query string) // nil: no test does
	unindexed *unindexed         // nil: all indexes are used
	last      string             // text of the last statement; set only if unindexed is
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

// Query runs a statement that returns rows. The caller must close them before the next
// statement of the transaction, and check their Err.
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

// QueryRow runs a statement that returns at most one row. Scan returns its errors:
// sql.ErrNoRows if there is no row.
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

// Scanner is a row of QueryRow or Query. It can be read once.
type Scanner interface{ Scan(dest ...any) error }

// Collect returns the results of scan for each row of a query, in the query's order.
// Its errors do not name the query.
func Collect[T any](ctx context.Context, tx *Tx, scan func(row Scanner) (T, error), query string, args ...any) (all []T, err error) {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		item, err := scan(rows)
		if err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		all = append(all, item)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return all, nil
}

// IDs returns the ids that a statement selects or returns in its only column.
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

// Lock takes a lock on key until the transaction ends, either exclusive or shared. Keys
// are ids, so two uses of one id conflict. On SQLite Lock does nothing, because there
// is one writer at a time; that is true only of read-write transactions, so Lock fails
// in a View.
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

// SkipLocked is a suffix of a SELECT of the rows that a statement updates: rows that
// another transaction has locked are skipped instead of waited for. On SQLite, which
// has one writer, it is empty.
func (tx *Tx) SkipLocked() string { return tx.dialect.skipLocked }

// Clock is an SQL expression for the database's current time in Unix milliseconds.
func (tx *Tx) Clock() string { return tx.dialect.clock }

// EndSession ends the connections of another process, given its DB.Session: its
// transactions are rolled back, and their locks are released.
func (tx *Tx) EndSession(ctx context.Context, session string) error {
	if tx.dialect.endSession == "" {
		return nil
	}
	if _, err := tx.Exec(ctx, tx.dialect.endSession, session); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// refusal is an argument whose conversion fails, which is the only way to give a
// sql.Row an error.
type refusal struct{ err error }

func (r refusal) Value() (driver.Value, error) { return nil, r.err }

// prepare returns the text for this database and the arguments as values that both
// drivers handle in the same way; it fails if the transaction has failed before.
func (tx *Tx) prepare(query string, args []any) (text string, values []any, err error) {
	if tx.failed != nil {
		return "", nil, fmt.Errorf("the transaction cannot go on: an earlier statement failed: %w", tx.failed)
	}
	if tx.observe != nil {
		tx.observe(query)
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
		if values[i], err = normalize(arg); err != nil {
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

// normalize turns an argument into nil, int64, string or []byte; booleans become 0 and
// 1. A nil []byte is NULL, an empty one is an empty blob.
func normalize(arg any) (any, error) {
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
		return normalize(value)
	}
	return nil, fmt.Errorf("type %T has no column type", arg)
}

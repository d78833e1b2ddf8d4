package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

var postgres = Dialect{
	Name:          "postgres",
	parameter:     "$",
	schemaWords:   []string{"${BLOB}", "BYTEA"},
	viewLevel:     sql.LevelRepeatableRead,
	skipLocked:    " FOR UPDATE SKIP LOCKED",
	lockShared:    "SELECT pg_advisory_xact_lock_shared(?1)",
	lockExclusive: "SELECT pg_advisory_xact_lock(?1)",
	clock:         "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
	endSession:    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user AND application_name = ?1",
	goose:         goose.DialectPostgres,
	migrationLock: func() (lock.SessionLocker, error) {
		return lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300)) // tries each second, 300 times
	},
	retryable:   postgresRetryable,
	unique:      postgresUnique,
	failureKind: postgresFailureKind,
	openFailure: postgresOpenFailure,
	check:       postgresCheck,
	hasTable:    "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = ?1",
	tables:      "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename",
	checkTable:  postgresCheckTable,
	scan:        postgresScan,
	execMany:    postgresExecMany,
	texts:       &texts{},
}

// Codes of postgresql.org/docs/current/errcodes-appendix.html.
const (
	uniqueViolation      = "23505"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	diskFull             = "53100"
	readOnlyTransaction  = "25006" // a standby, or default_transaction_read_only
	dataCorrupted        = "XX001"
	indexCorrupted       = "XX002"
)

func postgresCode(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// postgresRetryable is also true for a connection that was found dead before anything
// was sent on it, which the driver reports as ErrBadConn.
func postgresRetryable(err error) bool {
	code := postgresCode(err)
	return code == serializationFailure || code == deadlockDetected || errors.Is(err, driver.ErrBadConn)
}

// postgresCorruption returns the server's message about a corrupt table or index. The
// message names it and contains no value of a row.
func postgresCorruption(err error) (message string, ok bool) {
	var e *pgconn.PgError
	if errors.As(err, &e) && (e.Code == dataCorrupted || e.Code == indexCorrupted) {
		return e.Message, true
	}
	return "", false
}

func postgresUnique(err error) bool { return postgresCode(err) == uniqueViolation }

func postgresFailureKind(err error) failureKind {
	switch code := postgresCode(err); {
	case code == diskFull:
		return full
	case code == readOnlyTransaction:
		return readOnly
	case code == dataCorrupted || code == indexCorrupted:
		return unsound
	case strings.HasPrefix(code, "08"), strings.HasPrefix(code, "57P"), strings.HasPrefix(code, "53"):
		return unreachable // the connection failed, or the server is starting, stopping or overloaded
	case code == "" && isConnectionError(err):
		return unreachable
	}
	return otherFailure
}

// isConnectionError reports whether err is an error of the connection, not of a
// statement.
func isConnectionError(err error) bool {
	var connecting *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connecting) || errors.As(err, &network) || errors.Is(err, driver.ErrBadConn) ||
		errors.Is(err, pgconn.ErrConnClosed) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// postgresWriters is DB.Writers: while the server makes one commit durable, it works on
// the next transaction.
const postgresWriters = 2

// pipelineSize is how many rows are sent to the server before their results are read.
const pipelineSize = 1000

func postgresExecMany(ctx context.Context, tx *Tx, text string, argRows [][]any) ([]int64, error) {
	affected := make([]int64, 0, len(argRows))
	err := tx.conn.Raw(func(raw any) error {
		conn := raw.(*stdlib.Conn).Conn()
		for len(argRows) > 0 {
			n := min(len(argRows), pipelineSize)
			var batch pgx.Batch
			for _, args := range argRows[:n] {
				batch.Queue(text, args...)
			}
			argRows = argRows[n:]
			results := conn.SendBatch(ctx, &batch)
			for range n {
				tag, err := results.Exec()
				if err != nil {
					return errors.Join(err, results.Close())
				}
				affected = append(affected, tag.RowsAffected())
			}
			if err := results.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	return affected, err
}

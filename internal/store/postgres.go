package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"keyroll/api"
	"keyroll/internal/fail"
)

// postgresConnections bounds one node's connections; PostgreSQL's own default
// for all nodes together is 100.
const postgresConnections = 16

func openPostgres(address string) (*DB, error) {
	config, err := pgx.ParseConfig(address)
	if err != nil { // not kept: it repeats the address, with its password
		return nil, fail.New(api.InvalidArgument, "open database: the PostgreSQL address has a wrong port or parameter")
	}
	pool := stdlib.OpenDB(*config)
	pool.SetMaxOpenConns(postgresConnections)
	pool.SetMaxIdleConns(postgresConnections)
	return &DB{dialect: &postgres, writer: pool, reader: pool}, nil
}

var postgres = Dialect{
	Name:          "postgres",
	parameter:     "$",
	schemaWords:   []string{"${BLOB}", "BYTEA"},
	viewLevel:     sql.LevelRepeatableRead,
	skipLocked:    " FOR UPDATE SKIP LOCKED",
	lockShared:    "SELECT pg_advisory_xact_lock_shared(?1)",
	lockExclusive: "SELECT pg_advisory_xact_lock(?1)",
	goose:         goose.DialectPostgres,
	migrationLock: func() (lock.SessionLocker, error) {
		return lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300)) // asks each second, 300 times
	},
	retryable:   postgresRetryable,
	unique:      postgresUnique,
	openFailure: postgresOpenFailure,
	execMany:    postgresExecMany,
	texts:       &texts{},
}

// Codes of postgresql.org/docs/current/errcodes-appendix.html.
const (
	uniqueViolation      = "23505"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
)

func postgresCode(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// postgresRetryable also takes a connection found dead before anything was
// sent on it, which the driver reports as ErrBadConn.
func postgresRetryable(err error) bool {
	code := postgresCode(err)
	return code == serializationFailure || code == deadlockDetected || errors.Is(err, driver.ErrBadConn)
}

func postgresUnique(err error) bool { return postgresCode(err) == uniqueViolation }

func postgresOpenFailure(shown string, err error) error {
	return fail.New(api.Unavailable, "open database %s: PostgreSQL does not answer or refuses", shown).Because(err)
}

// pipelined is how many rows go to the server before their results are read.
const pipelined = 1000

func postgresExecMany(ctx context.Context, tx *Tx, text string, argRows [][]any) ([]int64, error) {
	affected := make([]int64, 0, len(argRows))
	err := tx.conn.Raw(func(raw any) error {
		conn := raw.(*stdlib.Conn).Conn()
		for len(argRows) > 0 {
			n := min(len(argRows), pipelined)
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

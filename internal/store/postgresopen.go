package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"keyroll/api"
	"keyroll/internal/fail"
)

// A node has up to postgresConnections connections by default; its address can set
// another limit in the parameter pool_max_conns. PostgreSQL's default for all nodes
// together is 100. Below fewestConnections, work that holds a connection while it waits
// for another one could deadlock.
const (
	postgresConnections = 16
	fewestConnections   = 4
	connectionsAside    = 2 // in addition, for DB.Aside; one if there are few
	mostConnections     = 1000
	poolParameter       = "pool_max_conns"
)

// asideTime bounds how long the transaction of a stalled process keeps its locks, as
// long as no other node knows of the process.
const asideTime = 10 * time.Second

// connectTime is the default of the timeout for connecting, which the address or
// PGCONNECT_TIMEOUT can set: a host that is down does not answer at all.
const connectTime = 10 * time.Second

// connectionAge is the age at which a connection is replaced by a new one, which goes
// to the server that the address resolves to by then.
const connectionAge = 30 * time.Minute

// sessionPrefix is the prefix of the application_name of a node's connections.
const sessionPrefix = "keyroll "

func openPostgres(u *url.URL) (*DB, error) {
	config, connections, err := postgresConfig(u)
	if err != nil {
		return nil, err
	}
	session := sessionPrefix + rand.Text()
	config.RuntimeParams["application_name"] = session
	open := func(config *pgx.ConnConfig, connections int) *sql.DB {
		connector := &poolConnector{Connector: stdlib.GetConnector(*config), max: connections}
		pool := sql.OpenDB(connector)
		connector.pool = pool
		pool.SetMaxOpenConns(connections)
		pool.SetMaxIdleConns(connections)
		pool.SetConnMaxLifetime(connectionAge)
		return pool
	}
	pool := open(config, connections)
	return &DB{shown: postgresShown(config), dialect: &postgres, session: session, writer: pool, reader: pool,
		aside: func() *sql.DB {
			short := config.Copy()
			short.RuntimeParams["idle_in_transaction_session_timeout"] = strconv.FormatInt(asideTime.Milliseconds(), 10)
			return open(short, connectionsAside)
		},
		forMigration: func() *sql.DB {
			slow := config.Copy()
			slow.RuntimeParams["lock_timeout"] = strconv.FormatInt(migrationLockTime.Milliseconds(), 10)
			return stdlib.OpenDB(*slow)
		}}, nil
}

// postgresConfig returns the configuration of an address and the environment
// (PGPASSWORD, PGPASSFILE, PGSSLROOTCERT and so on), and how many connections a node
// has.
func postgresConfig(u *url.URL) (*pgx.ConnConfig, int, error) {
	connections := postgresConnections
	address := *u
	parameters := u.Query()
	if text := parameters.Get(poolParameter); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < fewestConnections || n > mostConnections {
			return nil, 0, fail.New(api.InvalidArgument, "open database: %s is not a number from %d to %d", poolParameter, fewestConnections, mostConnections)
		}
		connections = n
		parameters.Del(poolParameter)
		address.RawQuery = parameters.Encode()
	}
	config, err := pgx.ParseConfig(address.String())
	var file *fs.PathError
	switch {
	case errors.As(err, &file):
		return nil, 0, fail.New(api.InvalidArgument, "open database: a file that the PostgreSQL address names cannot be read: %w", file)
	case err != nil: // it is dropped, because it has the address with its password
		return nil, 0, fail.New(api.InvalidArgument, "open database: the PostgreSQL address has a wrong port or parameter")
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTime
	}
	return config, connections, nil
}

// postgresShown is the address of a configuration without its password.
func postgresShown(config *pgx.ConnConfig) string {
	shown := url.URL{Scheme: "postgres", Path: "/" + config.Database}
	if strings.HasPrefix(config.Host, "/") { // the folder of a socket
		shown.RawQuery = url.Values{"host": {config.Host}}.Encode()
	} else {
		shown.Host = net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	}
	return shown.String()
}

// oldestPostgres is the first version with all features that keyroll uses.
const oldestPostgres = 14

// postgresCheck refuses a server that is too old, that has another text encoding, or
// that confirms commits before they are on its disk.
func postgresCheck(ctx context.Context, db *DB) error {
	var number, version, encoding, commit string
	err := db.writer.QueryRowContext(ctx, `SELECT current_setting('server_version_num'), current_setting('server_version'),
		current_setting('server_encoding'), current_setting('synchronous_commit')`).Scan(&number, &version, &encoding, &commit)
	if err != nil {
		return postgresOpenFailure(db.shown, err)
	}
	n, err := strconv.Atoi(number)
	switch {
	case err != nil || n < oldestPostgres*10_000:
		return fail.New(api.Conflict, "open database %s: its server is PostgreSQL %s", db.shown, version).
			WithHint("keyroll needs PostgreSQL %d or later; nothing was changed", oldestPostgres)
	case encoding != "UTF8":
		return fail.New(api.Conflict, "open database %s: its text encoding is %s", db.shown, encoding).
			WithHint("create one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0; nothing was changed")
	case commit == "off":
		return fail.New(api.Conflict, "open database %s: synchronous_commit is off there, so a crash could lose the last commits, which contain keys", db.shown).
			WithHint("ALTER ROLE … SET synchronous_commit = on; nothing was changed")
	}
	return nil
}

// Codes of postgresql.org/docs/current/errcodes-appendix.html that say why a
// database cannot be opened.
const (
	invalidPassword       = "28P01"
	invalidAuthorization  = "28000"
	noSuchDatabase        = "3D000"
	insufficientPrivilege = "42501"
	noSchema              = "3F000"
	tooManyConnections    = "53300"
	lockNotAvailable      = "55P03"
)

// openHints has the hints for the errors with which a server refuses a connection.
var openHints = map[string]string{
	invalidPassword:       "the password comes from PGPASSWORD, the file that PGPASSFILE names, or the address in KEYROLL_DATABASE",
	invalidAuthorization:  "check the user in the address and the server's pg_hba.conf",
	noSuchDatabase:        "create it: createdb --encoding=UTF8 --template=template0 --owner=USER NAME",
	insufficientPrivilege: "the user must own the database, or have CONNECT on it, and USAGE and CREATE on its schema",
	noSchema:              "give the user a schema: CREATE SCHEMA AUTHORIZATION USER, or GRANT USAGE, CREATE ON SCHEMA public TO USER",
	tooManyConnections:    "raise max_connections of the server, or give each node fewer with the address's parameter " + poolParameter,
	lockNotAvailable:      "another session has locked a table for minutes, as a long verify or backup does; start keyroll again when it has ended. The schema was not changed",
}

func postgresOpenFailure(shown string, err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		hint, known := openHints[refused.Code]
		if !known {
			hint = "PostgreSQL's own log says more"
		}
		return fail.New(api.Unavailable, "open database %s: PostgreSQL refuses: %s", shown, refused.Message).WithHint("%s", hint).Because(err)
	}
	return fail.New(api.Unavailable, "open database %s: PostgreSQL does not answer: %s", shown, connectFailure(err)).
		WithHint("start PostgreSQL or correct the address. keyroll does not wait for it when it starts: start keyroll again afterwards").Because(err)
}

// connectFailure is the reason why connecting failed, without the parameters of the
// connection.
func connectFailure(err error) string {
	var network *net.OpError
	var name *net.DNSError
	switch {
	case errors.As(err, &name):
		return name.Error()
	case errors.As(err, &network):
		return network.Err.Error()
	case errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err):
		return "no answer in time"
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err.Error()
}

package storetest

import (
	"bufio"
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // registers "pgx"

	"keyroll/internal/store"
)

// server is this process's PostgreSQL, started at first use.
var server = sync.OnceValues(start)

var databases atomic.Int64

// PostgresURL returns the address of a new PostgreSQL database with the
// schema, dropped when t ends.
func PostgresURL(t testing.TB) string {
	t.Helper()
	return newDatabase(t, "keyroll")
}

// EmptyPostgresURL returns the address of a new empty PostgreSQL database, dropped when
// t ends.
func EmptyPostgresURL(t testing.TB) string {
	t.Helper()
	return newDatabase(t, "template0")
}

// CopyPostgres returns the address of a new copy of a database that PostgresURL,
// EmptyPostgresURL or CopyPostgres returned and that nothing uses, dropped when t ends.
func CopyPostgres(t testing.TB, address string) string {
	t.Helper()
	return newDatabase(t, strings.TrimPrefix(strings.SplitN(address, "?", 2)[0], "postgres:///"))
}

func newDatabase(t testing.TB, template string) string {
	t.Helper()
	s, err := server()
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	name := fmt.Sprintf("test%d", databases.Add(1))
	if _, err := s.admin.Exec("CREATE DATABASE " + name + " TEMPLATE " + template + s.copied); err != nil {
		t.Fatalf("create test database: %v", err)
	}
	t.Cleanup(func() {
		if _, err := s.admin.Exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("drop test database: %v", err)
		}
	})
	return address(s.folder, name)
}

// cluster is a running PostgreSQL server.
type cluster struct {
	folder string // of its socket
	// admin keeps one connection: opening one costs more than creating a database,
	// and with only one the template is never in use.
	admin  *sql.DB
	copied string // option for copying a database as files, which is the fastest
}

// start creates a cluster, starts its server, and creates the template database keyroll
// with the schema.
func start() (*cluster, error) {
	binaries, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(binaries) == 0 {
		return nil, errors.New("no /usr/lib/postgresql/*/bin: install the package postgresql")
	}
	folder, err := os.MkdirTemp("", "keyroll-postgres-")
	if err != nil {
		return nil, err
	}
	owner, err := unprivileged()
	if err != nil {
		return nil, err
	}
	if owner != nil {
		if err := os.Chown(folder, int(owner.Uid), int(owner.Gid)); err != nil {
			return nil, err
		}
	}
	if err := launch(binaries[len(binaries)-1], folder, owner); err != nil {
		return nil, err
	}
	s := &cluster{folder: folder}
	if s.admin, err = sql.Open("pgx", address(folder, "postgres")); err != nil {
		return nil, err
	}
	s.admin.SetMaxOpenConns(1)
	var version int
	if err := s.admin.QueryRow("SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return nil, err
	}
	if version >= 15_00_00 { // older versions always copy files
		s.copied = " STRATEGY FILE_COPY"
	}
	if _, err := s.admin.Exec("CREATE DATABASE keyroll"); err != nil {
		return nil, err
	}
	db, err := store.Open(context.Background(), address(folder, "keyroll"))
	if err != nil {
		return nil, err
	}
	return s, db.Close()
}

//go:embed server.sh
var script string

// lifeline is the pipe that the script reads from. It is a variable so that it stays
// reachable, and thus open, as long as this process lives; no other process inherits it.
//
//lint:ignore U1000 written so that it stays open, never read
var lifeline io.WriteCloser

// launch runs the script that keeps the server and returns when the server
// accepts connections.
func launch(binaries, folder string, owner *syscall.Credential) error {
	shell := exec.Command("/bin/sh", "-c", script, "postgres", binaries, folder)
	shell.Dir = folder
	shell.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
	// A session of its own: an interrupt from the terminal must not stop the
	// shell before it has stopped the server.
	shell.SysProcAttr = &syscall.SysProcAttr{Credential: owner, Setsid: true}
	var err error
	if lifeline, err = shell.StdinPipe(); err != nil {
		return err
	}
	output, err := shell.StdoutPipe()
	if err != nil {
		return err
	}
	if err := shell.Start(); err != nil {
		return err
	}
	var printed []string
	for lines := bufio.NewScanner(output); lines.Scan(); {
		if lines.Text() == "ready" {
			return nil
		}
		printed = append(printed, lines.Text())
	}
	return fmt.Errorf("%s", strings.Join(printed, "\n"))
}

// unprivileged returns the user for the server, because PostgreSQL refuses root; nil is
// this process's own user.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	who, err := user.Lookup("postgres")
	if err != nil {
		if who, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(who.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func address(folder, database string) string {
	query := url.Values{"host": {folder}, "user": {"keyroll"}, "connect_timeout": {"300"}} // for slow machines
	return "postgres:///" + database + "?" + query.Encode()
}

// Socket returns the socket of the server of an address that PostgresURL returned.
func Socket(address string) string {
	return filepath.Join(parameters(address).Get("host"), ".s.PGSQL.5432")
}

// Through returns the address of the same database at another host and port that
// forward to it.
func Through(address, hostPort string) string {
	u := url.URL{Scheme: "postgres", User: url.User(parameters(address).Get("user")), Host: hostPort, RawQuery: "sslmode=disable"}
	u.Path = strings.TrimPrefix(strings.SplitN(address, "?", 2)[0], "postgres://")
	return u.String()
}

func parameters(address string) url.Values {
	u, err := url.Parse(address)
	if err != nil {
		panic(err) // it does not come from PostgresURL
	}
	return u.Query()
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	sqlitedriver "github.com/ncruces/go-sqlite3/driver"
	"github.com/pressly/goose/v3"

	"keyroll/api"
	"keyroll/internal/fail"
)

// Every connection: wait for another process's writer; a write-ahead log, so
// that readers and the writer do not wait for each other; FULL, because NORMAL
// may lose the last commits on power loss, and those are keys
// (sqlite.org/pragma.html#pragma_synchronous). Pages of 16 KiB: key pages of
// 512 slots moved 10 to 25 % faster than with 32 or 4 KiB, and a small commit writes
// half of what it does with 32. Deleted content is overwritten by zeros
// (sqlite.org/pragma.html#pragma_secure_delete): an erased wrap does not remain in free
// pages.
var sqlitePragmas = []string{
	"busy_timeout(5000)",
	"page_size(16384)",
	"journal_mode(WAL)",
	"synchronous(FULL)",
	"foreign_keys(1)",
	"secure_delete(1)",
}

// checkpoints decides when the writer checkpoints the write-ahead log. The log is
// truncated to 32 MiB when a large transaction made it longer. A cache (negative: KiB)
// over 16 MiB made a roll no faster; the file's other tables may use it.
var (
	sqliteWriterPragmas = []string{"cache_size(-32768)", "journal_size_limit(33554432)"}
	sqliteReaderPragmas = []string{"cache_size(-8192)", "query_only(1)"}
)

const sqliteReaders = 4

func openSQLite(u *url.URL) (*DB, error) {
	if u.Host != "" || !filepath.IsAbs(u.Path) || u.RawQuery != "" {
		return nil, fail.New(api.InvalidArgument, "open database: an SQLite address is sqlite:// and an absolute path, sqlite:///var/lib/keyroll/keyroll.db")
	}
	// The -shm file is created here because the driver would make it readable by
	// all users; it gives -wal the mode of the database file (modeof).
	for _, name := range []string{u.Path, u.Path + "-shm"} {
		if err := ownerOnly(name); err != nil {
			return nil, err
		}
	}
	log := &checkpoints{}
	writer, err := openPool(sqliteName(u.Path, "immediate", sqliteWriterPragmas), func(conn *sqlite3.Conn) { conn.WALHook(log.committed) })
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	reader, err := openPool(sqliteName(u.Path, "deferred", sqliteReaderPragmas), func(*sqlite3.Conn) {})
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	reader.SetMaxOpenConns(sqliteReaders)
	reader.SetMaxIdleConns(sqliteReaders)
	return &DB{shown: (&url.URL{Scheme: "sqlite", Path: u.Path}).String(), dialect: &sqlite, writer: writer, reader: reader, log: log}, nil
}

// openPool returns a pool whose connections are passed to opened when they are new.
func openPool(name string, opened func(*sqlite3.Conn)) (*sql.DB, error) {
	connector, err := (&sqlitedriver.SQLite{}).OpenConnector(name)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(preparingConnector{connector, opened}), nil
}

// ownerOnly creates the file if it does not exist, and makes it accessible only to its
// owner.
func ownerOnly(name string) error {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fail.New(api.InvalidArgument, "open database: %w", err)
	}
	return errors.Join(file.Chmod(0o600), file.Close())
}

func sqliteName(path, lock string, pragmas []string) string {
	name := url.URL{Scheme: "file", OmitHost: true, Path: path}
	query := url.Values{"modeof": {path}, "_txlock": {lock}, "_pragma": slices.Concat(sqlitePragmas, pragmas)}
	name.RawQuery = query.Encode()
	return name.String()
}

// TruncateLog checkpoints the write-ahead log of an SQLite database and empties it, so
// that it has no deleted content. It fails if a reader uses the log for longer than a
// connection waits. On PostgreSQL it does nothing.
func (db *DB) TruncateLog(ctx context.Context) error {
	if db.dialect.Name != sqlite.Name {
		return nil
	}
	var busy, pages, done int64
	err := db.writer.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &done)
	if err == nil && busy != 0 {
		err = errors.New("another process is reading it")
	}
	if err != nil {
		return fmt.Errorf("empty the write-ahead log: %w", err)
	}
	return nil
}

var sqlite = Dialect{
	Name:      "sqlite",
	parameter: "?",
	// Only a column of type INTEGER becomes the row id, so that the primary key
	// needs no index of its own; otherwise the two words mean the same
	// (sqlite.org/lang_createtable.html#rowid).
	schemaWords: []string{"${BLOB}", "BLOB", "BIGINT", "INTEGER"},
	viewLevel:   sql.LevelDefault,
	clock:       "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
	goose:       goose.DialectSQLite3,
	retryable:   func(err error) bool { return errors.Is(err, sqlite3.BUSY) },
	unique:      sqliteUnique,
	failureKind: sqliteFailureKind,
	openFailure: sqliteOpenFailure,
	hasTable:    "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1",
	tables:      "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name",
	checkTable:  sqliteCheckTable,
	scan:        sqliteScan,
	execMany:    sqliteExecMany,
	texts:       &texts{},
}

func sqliteUnique(err error) bool {
	return errors.Is(err, sqlite3.CONSTRAINT_UNIQUE) || errors.Is(err, sqlite3.CONSTRAINT_PRIMARYKEY) ||
		errors.Is(err, sqlite3.CONSTRAINT_ROWID)
}

// sqliteFailureKind also checks the error of the operating system, because the driver
// reports some of them only as general I/O errors.
func sqliteFailureKind(err error) failureKind {
	switch {
	case errors.Is(err, sqlite3.FULL) || isDiskFull(err):
		return full
	case errors.Is(err, sqlite3.IOERR_WRITE):
		return unwritable
	case errors.Is(err, sqlite3.READONLY) || errors.Is(err, syscall.EROFS):
		return readOnly
	case errors.Is(err, sqlite3.CORRUPT) || errors.Is(err, sqlite3.NOTADB) || errors.Is(err, sqlite3.IOERR_CORRUPTFS):
		return unsound
	}
	return otherFailure
}

func sqliteOpenFailure(shown string, err error) error {
	if errors.Is(err, sqlite3.NOTADB) || errors.Is(err, sqlite3.CORRUPT) {
		return fail.New(api.Damaged, "open database %s: it is not a valid SQLite file", shown).Because(err)
	}
	return fail.New(api.Unavailable, "open database %s: SQLite cannot open it", shown).Because(err)
}

func sqliteExecMany(ctx context.Context, tx *Tx, text string, argRows [][]any) ([]int64, error) {
	stmt, err := tx.tx.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	defer stmt.Close()
	affected := make([]int64, len(argRows))
	for i, args := range argRows {
		result, err := stmt.ExecContext(ctx, args...)
		if err != nil {
			return nil, err
		}
		if affected[i], err = result.RowsAffected(); err != nil {
			return nil, err
		}
	}
	return affected, nil
}

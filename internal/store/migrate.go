package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/pressly/goose/v3"

	"keyroll/api"
	"keyroll/internal/fail"
)

//go:embed schema/*.sql
var schema embed.FS

// versionTable holds a row for each schema file that has been applied.
const versionTable = "schema_version"

// A schema file waits for the lock of a table no longer than migrationLockTime, because
// all other transactions on the table wait behind it. Then it is tried again after
// migrationPause, up to migrationTries times.
var (
	migrationLockTime = time.Second
	migrationPause    = 2 * time.Second
	migrationTries    = 100
)

// migrate applies the schema files that have not been applied yet, each in a
// transaction of its own, while older nodes continue to run (schema/README.md). Nodes
// on PostgreSQL may start at the same time; an SQLite file is used by one process,
// which has locked its data folder.
func (db *DB) migrate(ctx context.Context) error {
	pool := db.writer
	if db.forMigration != nil {
		pool = db.forMigration()
		defer pool.Close()
	}
	provider, err := db.dialect.migrations(pool)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	for try := 1; ; try++ {
		err := upgrade(ctx, provider)
		if postgresCode(err) != lockNotAvailable || try == migrationTries {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("migrate: %w", ctx.Err())
		case <-time.After(migrationPause):
		}
	}
}

func upgrade(ctx context.Context, provider *goose.Provider) error {
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if current > target {
		return fail.New(api.NewerFormat, "its schema is version %d, but this keyroll knows only versions up to %d", current, target).
			WithHint("start the keyroll that wrote it, or a newer one; nothing was changed")
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// migrations returns a provider that applies the schema files to a database.
func (d *Dialect) migrations(pool *sql.DB) (*goose.Provider, error) {
	options := []goose.ProviderOption{
		goose.WithDisableGlobalRegistry(true),
		goose.WithTableName(versionTable),
	}
	if d.migrationLock != nil {
		locker, err := d.migrationLock()
		if err != nil {
			return nil, err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	files, err := fs.Sub(schema, "schema")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(d.goose, pool, schemaFS{files, strings.NewReplacer(d.schemaWords...)}, options...)
}

// schemaFS is a folder of schema files in the dialect of one database.
type schemaFS struct {
	fs.FS
	words *strings.Replacer
}

// Open opens a file with its words replaced, or a folder unchanged.
func (s schemaFS) Open(name string) (fs.File, error) {
	file, err := s.FS.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil || info.IsDir() {
		return file, err
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	return schemaFile{file, strings.NewReader(s.words.Replace(string(text)))}, nil
}

type schemaFile struct {
	fs.File
	text io.Reader
}

func (f schemaFile) Read(p []byte) (int, error) { return f.text.Read(p) }

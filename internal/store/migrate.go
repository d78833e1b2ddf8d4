package store

import (
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/pressly/goose/v3"

	"keyroll/api"
	"keyroll/internal/fail"
)

//go:embed schema/*.sql
var schema embed.FS

// versionTable holds a row for each schema file that has been applied.
const versionTable = "schema_version"

// migrate applies the schema files that the database has not seen, each in a
// transaction of its own. Nodes on PostgreSQL may start at once; an SQLite file
// belongs to one process, which holds its data folder.
func (db *DB) migrate(ctx context.Context) error {
	options := []goose.ProviderOption{
		goose.WithDisableGlobalRegistry(true),
		goose.WithTableName(versionTable),
	}
	if db.dialect.migrationLock != nil {
		locker, err := db.dialect.migrationLock()
		if err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	files, err := fs.Sub(schema, "schema")
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	provider, err := goose.NewProvider(db.dialect.goose, db.writer,
		schemaFS{files, strings.NewReplacer(db.dialect.schemaWords...)}, options...)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if current > target {
		return fail.New(api.NewerFormat, "its schema is version %d, this keyroll knows versions up to %d", current, target).
			WithHint("start the keyroll that wrote it, or a newer one; nothing was changed")
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// schemaFS is a folder of schema files in the words of one database.
type schemaFS struct {
	fs.FS
	words *strings.Replacer
}

// Open opens a file with its words replaced, or a folder as it is.
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

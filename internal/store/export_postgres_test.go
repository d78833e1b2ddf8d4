package store

import (
	"context"
	"net/url"
	"time"
)

// Execute runs statements on a database, even on one that Open refuses.
func Execute(ctx context.Context, address string, statements ...string) error {
	db, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.InTx(ctx, func(tx *Tx) error {
		for _, s := range statements {
			if _, err := tx.Exec(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
}

// MigrateTo migrates a new database to a version of the schema, as an older keyroll did.
func MigrateTo(ctx context.Context, address string, version int64) error {
	db, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer db.Close()
	provider, err := db.dialect.migrations(db.writer)
	if err != nil {
		return err
	}
	_, err = provider.UpTo(ctx, version)
	return err
}

// Versions returns the versions of the schema files, sorted.
func Versions(ctx context.Context, db *DB) (list []int64, err error) {
	provider, err := db.dialect.migrations(db.writer)
	if err != nil {
		return nil, err
	}
	for _, source := range provider.ListSources() {
		list = append(list, source.Version)
	}
	return list, nil
}

// Dial opens a database without updating its schema.
func Dial(ctx context.Context, address string) (*DB, error) { return dial(ctx, address) }

// HurryMigrations sets how long and how often a schema file waits for a table.
func HurryMigrations(wait, pause time.Duration, tries int) (restore func()) {
	w, p, n := migrationLockTime, migrationPause, migrationTries
	migrationLockTime, migrationPause, migrationTries = wait, pause, tries
	return func() { migrationLockTime, migrationPause, migrationTries = w, p, n }
}

// SchemaFiles returns the schema files as in the source.
func SchemaFiles() (files map[string]string) {
	entries, err := schema.ReadDir("schema")
	if err != nil {
		panic(err)
	}
	files = map[string]string{}
	for _, e := range entries {
		text, err := schema.ReadFile("schema/" + e.Name())
		if err != nil {
			panic(err)
		}
		files[e.Name()] = string(text)
	}
	return files
}

// PostgresPassword returns the password from an address and the environment, and the
// address without it.
func PostgresPassword(address string) (password, shown string, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", "", err
	}
	config, _, err := postgresConfig(u)
	if err != nil {
		return "", "", err
	}
	return config.Password, postgresShown(config), nil
}

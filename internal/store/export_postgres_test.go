package store

import (
	"context"
	"net/url"
	"time"
)

// Execute runs statements on a database, also on one that is not to be used.
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

// MigrateTo brings a new database to a version of the schema, as a keyroll did
// that knew no later one.
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

// Versions are those of the schema files, in their order.
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

// Dial opens a database as it is: its schema is not brought up to date.
func Dial(ctx context.Context, address string) (*DB, error) { return dial(ctx, address) }

// HurryMigrations makes a schema file wait for a table for so long, so often.
func HurryMigrations(wait, pause time.Duration, tries int) (restore func()) {
	w, p, n := migrationLockTime, migrationPause, migrationTries
	migrationLockTime, migrationPause, migrationTries = wait, pause, tries
	return func() { migrationLockTime, migrationPause, migrationTries = w, p, n }
}

// SchemaFiles are the schema files as they stand in the source.
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

// PostgresPassword is the password that an address and the environment give, and
// the address as it is shown.
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

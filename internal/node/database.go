package node

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/files"
	"keyroll/internal/store"
)

// DatabaseFile is the embedded database in the data folder.
const DatabaseFile = "keyroll.db"

// databaseNameFile is a file in the data folder with the name of the database that the
// folder is used with, if that is not in the folder. Without it, a start that does not
// name the database would create an empty one.
const databaseNameFile = "database"

// ownDatabase is the address of the database in a data folder.
func ownDatabase(data string) string {
	return (&url.URL{Scheme: "sqlite", Path: filepath.Join(data, DatabaseFile)}).String()
}

// IsFolder reports whether a folder is a data folder: it has a database, or the name of
// one.
func IsFolder(data string) bool {
	return hasFile(data, DatabaseFile) || hasFile(data, databaseNameFile)
}

func hasFile(data, name string) bool {
	_, err := os.Stat(filepath.Join(data, name))
	return err == nil
}

// checkDatabase refuses a database if the data folder is used with another one.
func checkDatabase(ctx context.Context, o Options) error {
	if o.Database == ownDatabase(o.Data) {
		elsewhere, err := os.ReadFile(filepath.Join(o.Data, databaseNameFile))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return fail.New(api.Conflict, "data folder %s is used with database %s", o.Data, strings.TrimSpace(string(elsewhere))).
			WithHint("name that database with --database or KEYROLL_DATABASE; or, to use a database in the folder from now on, remove %s first", filepath.Join(o.Data, databaseNameFile))
	}
	if !hasFile(o.Data, DatabaseFile) {
		return nil
	}
	other, err := store.MovedTo(ctx, ownDatabase(o.Data))
	if err == nil && other == "" {
		err = fail.New(api.Conflict, "data folder %s has a database of its own, %s", o.Data, DatabaseFile).
			WithHint("move it with keyroll database move, or name a new folder with --data")
	}
	return err
}

// recordDatabase writes the name of a database that is not in the data folder to
// databaseNameFile.
func recordDatabase(o Options, db *store.DB) error {
	if o.Database == ownDatabase(o.Data) {
		return nil
	}
	return files.Replace(files.OS, filepath.Join(o.Data, databaseNameFile), []byte(db.Shown()+"\n"))
}

// MoveDatabase moves the database of a data folder, on which no server may run, to
// PostgreSQL, as store.Move describes.
func MoveDatabase(ctx context.Context, data, to string, progress func(stage string, done, total int64)) (store.Moved, error) {
	data, err := filepath.Abs(data)
	if err != nil {
		return store.Moved{}, err
	}
	if !hasFile(data, DatabaseFile) {
		return store.Moved{}, fail.New(api.InvalidArgument, "data folder %s has no database", data).WithHint("name one with --data")
	}
	unlock, err := lockFolder(files.OS, data)
	if err != nil {
		return store.Moved{}, err
	}
	moved, err := store.Move(ctx, ownDatabase(data), to, progress)
	return moved, errors.Join(err, unlock())
}

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

// elsewhereFile names, in the data folder, the database that the folder is used
// with when that stands elsewhere. A start that forgets to name it would begin
// with an empty one.
const elsewhereFile = "database"

// ownDatabase is the address of the database in a data folder.
func ownDatabase(data string) string {
	return (&url.URL{Scheme: "sqlite", Path: filepath.Join(data, DatabaseFile)}).String()
}

// IsFolder reports whether a node has run on a folder: it has a database of its
// own, or names the one that it is used with.
func IsFolder(data string) bool { return has(data, DatabaseFile) || has(data, elsewhereFile) }

func has(data, name string) bool {
	_, err := os.Stat(filepath.Join(data, name))
	return err == nil
}

// theOneDatabase refuses a database beside another one that the data folder is
// used with.
func theOneDatabase(ctx context.Context, o Options) error {
	if o.Database == ownDatabase(o.Data) {
		elsewhere, err := os.ReadFile(filepath.Join(o.Data, elsewhereFile))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return fail.New(api.Conflict, "data folder %s is used with database %s", o.Data, strings.TrimSpace(string(elsewhere))).
			WithHint("name it with --database or KEYROLL_DATABASE; or, to use a database in the folder from now on, remove %s first", filepath.Join(o.Data, elsewhereFile))
	}
	if !has(o.Data, DatabaseFile) {
		return nil
	}
	other, err := store.MovedTo(ctx, ownDatabase(o.Data))
	if err == nil && other == "" {
		err = fail.New(api.Conflict, "data folder %s has a database of its own, %s", o.Data, DatabaseFile).
			WithHint("move it with keyroll database move, or name a new folder with --data")
	}
	return err
}

// noteDatabase notes a database that stands elsewhere.
func (n *Node) noteDatabase(o Options) error {
	if o.Database == ownDatabase(o.Data) {
		return nil
	}
	return files.Replace(files.OS, filepath.Join(o.Data, elsewhereFile), []byte(n.DB.Shown()+"\n"))
}

// MoveDatabase moves the database of a data folder, on which no server runs, to
// PostgreSQL: store.Move says how.
func MoveDatabase(ctx context.Context, data, to string, progress func(stage string, done, total int64)) (store.Moved, error) {
	data, err := filepath.Abs(data)
	if err != nil {
		return store.Moved{}, err
	}
	if !has(data, DatabaseFile) {
		return store.Moved{}, fail.New(api.InvalidArgument, "data folder %s holds no database", data).WithHint("name one with --data")
	}
	unlock, err := lockFolder(files.OS, data)
	if err != nil {
		return store.Moved{}, err
	}
	moved, err := store.Move(ctx, ownDatabase(data), to, progress)
	return moved, errors.Join(err, unlock())
}

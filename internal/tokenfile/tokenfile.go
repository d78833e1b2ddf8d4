// Package tokenfile writes tokens, codes and secrets that a server returns only once to files.
//
// A file is created before the token is requested, so that a token is not lost because its file
// cannot be written. Only its owner can read it, and it never replaces another file. The
// package prints nothing. Start reading at Store.
package tokenfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/files"
)

// File is a file without a name yet. The caller discards it in any case.
type File struct{ *files.Draft }

// Create creates what becomes the file of a name, which must not exist.
func Create(name string) (File, error) {
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return File{}, fail.New(api.InvalidArgument, "%s exists; a token file is not overwritten", name)
	}
	return CreateIn(filepath.Dir(name))
}

// CreateIn creates what becomes a file in a folder.
func CreateIn(folder string) (File, error) {
	draft, err := files.NewDraft(files.OS, folder, ".new-")
	if err != nil {
		return File{}, fail.New(api.InvalidArgument, "the token file cannot be written: %w", err)
	}
	return File{draft}, nil
}

// Write puts the token into the file and gives it its name. Both are durable when it returns
// nil.
func (f File) Write(token, name string) error {
	if _, err := io.WriteString(f.Draft, token+"\n"); err != nil {
		return err
	}
	return f.Replace(name)
}

// Store requests a token and writes it to a new file.
func Store(name string, request func() (token string, err error)) (err error) {
	file, err := Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Discard()) }()
	token, err := request()
	if err != nil {
		return err
	}
	if err := file.Write(token, name); err != nil {
		return fmt.Errorf("the token could not be stored and is lost: %w", err)
	}
	return nil
}

package files_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"keyroll/internal/files"
)

func TestNewFilesAreReadableByTheirOwnerOnlyAndLeaveNoDraft(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "a", "b")
	if err := files.MkdirAll(files.OS, folder); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(folder, "file")
	if err := files.WriteNew(files.OS, name, []byte("first")); err != nil {
		t.Error(err)
	}
	if err := files.WriteNew(files.OS, name, []byte("second")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	if got, _ := os.ReadFile(name); string(got) != "first" {
		t.Errorf("the file became %q", got)
	}
	if err := files.Replace(files.OS, name, []byte("third")); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(name); string(got) != "third" {
		t.Errorf("the file was not replaced: %q", got)
	}
	lock, err := files.OS.Lock(filepath.Join(folder, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files.OS.Lock(filepath.Join(folder, "lock")); !errors.Is(err, files.ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Error(err)
	}
	found := map[string]fs.FileMode{}
	err = filepath.WalkDir(filepath.Dir(folder), func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			var info fs.FileInfo
			if info, err = entry.Info(); err == nil {
				found[entry.Name()] = info.Mode()
			}
		}
		return err
	})
	if err != nil || len(found) != 4 || found["a"].Perm() != 0o700 || found["b"].Perm() != 0o700 || found["file"] != 0o600 || found["lock"] != 0o600 {
		t.Errorf("made %v, %v", found, err)
	}
	if err := files.MkdirAll(files.OS, filepath.Join(name, "below")); err == nil {
		t.Error("a file was taken for a folder")
	}
}

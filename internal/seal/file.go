package seal

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"path/filepath"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/files"
)

const keySize = 32

// keyFile reads the key in path, and creates the file first if it does not exist. The
// file is durable when keyFile returns, because sealed secrets depend on it.
func keyFile(on files.FS, path string) ([]byte, error) {
	key, err := readKey(on, path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := writeKey(on, path); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		return readKey(on, path)
	}
	if err == nil {
		err = files.SyncFound(on, filepath.Dir(path))
	}
	if err != nil {
		clear(key)
		return nil, err
	}
	return key, nil
}

// readKey refuses a file that other users may read or its group may write. A systemd
// credential is readable by its group if an ACL grants the access.
func readKey(on files.FS, path string) ([]byte, error) {
	f, err := on.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fail.New(api.InvalidArgument, "seal: %s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o037 != 0 {
		return nil, fail.New(api.InvalidArgument, "seal: %s has mode %04o", path, mode).
			WithHint("run chmod 0600 on it, and consider who may have read it")
	}
	key, err := io.ReadAll(io.LimitReader(f, keySize+1))
	if err != nil {
		return nil, err
	}
	if len(key) != keySize {
		return nil, fail.New(api.InvalidArgument, "seal: %s does not hold exactly %d bytes", path, keySize)
	}
	return key, nil
}

// writeKey creates a new key, and never replaces an existing one.
func writeKey(on files.FS, path string) error {
	key := make([]byte, keySize)
	rand.Read(key)
	defer clear(key)
	return files.WriteNew(on, path, key)
}

package seal

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"keyroll/api"
	"keyroll/internal/fail"
)

const keySize = 32

// keyFile reads the key in path, and makes it first if there is no such file.
func keyFile(path string) ([]byte, error) {
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := writeKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return readKey(path)
}

// readKey refuses a file that others may read or its group may write. A
// systemd credential is readable by its group where an ACL grants the access.
func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
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
			WithHint("run chmod 0600 on it, and think who may have read it")
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

// writeKey makes a new key durable before path names it, and never replaces a file.
func writeKey(path string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".seal-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	key := make([]byte, keySize)
	rand.Read(key)
	defer clear(key)
	_, err = f.Write(key)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

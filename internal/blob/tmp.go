package blob

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"

	"keyroll/internal/files"
)

// Several processes may keep blobs in one folder. Each writes in a folder of its
// own under tmp, and holds a lock on a file there for as long as it lives; a folder
// whose lock is free was left by a process that ended before it could clean up.

// lockName is the file in a process's folder that the process keeps locked.
const lockName = "lock"

// ownTmp makes a folder under tmp for this process, and removes those of
// processes that ended. No other process removes the folder until the lock is closed.
func (f *folder) ownTmp() error {
	if err := f.files.Mkdir(f.path(tmpName)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for {
		f.tmp = f.path(tmpName + "/" + rand.Text())
		if err := f.files.Mkdir(f.tmp); err != nil {
			return err
		}
		// Before it is locked, another process may remove it as one that was left.
		lock, err := f.files.Lock(filepath.Join(f.tmp, lockName))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, files.ErrLocked) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := f.files.Stat(filepath.Join(f.tmp, lockName)); err != nil {
			lock.Close()
			continue
		}
		f.lock = lock
		if err := f.clearTmp(); err != nil {
			return errors.Join(err, lock.Close())
		}
		return nil
	}
}

// clearTmp removes the folders under tmp whose locks are free.
func (f *folder) clearTmp() error {
	all, err := f.files.ReadDir(f.path(tmpName))
	if err != nil {
		return err
	}
	for _, entry := range all {
		path := f.path(tmpName + "/" + entry.Name())
		if path == f.tmp {
			continue
		}
		lock, err := f.files.Lock(filepath.Join(path, lockName))
		if errors.Is(err, files.ErrLocked) || errors.Is(err, fs.ErrNotExist) {
			continue // its process is alive, or another process has removed it
		}
		if err != nil && !errors.Is(err, syscall.ENOTDIR) { // earlier versions of keyroll left files here
			return err
		}
		err = f.removeAll(path)
		if lock != nil {
			lock.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes a file, or a folder with everything in it.
func (f *folder) removeAll(path string) error {
	entries, err := f.files.ReadDir(path)
	if err != nil && !errors.Is(err, syscall.ENOTDIR) {
		return ignoreNotExist(err)
	}
	for _, entry := range entries {
		if err := f.removeAll(filepath.Join(path, entry.Name())); err != nil {
			return err
		}
	}
	return ignoreNotExist(f.files.Remove(path))
}

// ignoreNotExist returns err, or nil if err is fs.ErrNotExist.
func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

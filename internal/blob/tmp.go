package blob

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Several processes may keep blobs in one folder. Each writes in a folder of its
// own under tmp, and holds a lock on a file there for as long as it lives; what
// has no holder is of a process that ended before it was done.

// lockName is the file in a process's folder that it holds locked.
const lockName = "lock"

// ownTmp makes a folder under tmp for this process, and removes those of
// processes that ended. The folder is its own until the file is closed.
func ownTmp(tmp string) (own string, lock *os.File, err error) {
	if err := os.MkdirAll(tmp, folderMode); err != nil {
		return "", nil, err
	}
	for {
		own = filepath.Join(tmp, rand.Text())
		if err := os.Mkdir(own, folderMode); err != nil {
			return "", nil, err
		}
		// Somebody else may take it for one that was left, before it is locked.
		lock, err := lockTmp(own, os.O_CREATE)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return "", nil, err
		}
		if _, err := os.Stat(filepath.Join(own, lockName)); err != nil {
			lock.Close()
			continue
		}
		return own, lock, clearTmp(tmp, own)
	}
}

func lockTmp(folder string, flag int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(folder, lockName), os.O_RDWR|flag, fileMode)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// clearTmp removes what stands under tmp and has no holder.
func clearTmp(tmp, own string) error {
	all, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, entry := range all {
		path := filepath.Join(tmp, entry.Name())
		if path == own {
			continue
		}
		lock, err := lockTmp(path, os.O_CREATE)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			continue // its process lives, or somebody else has removed it
		}
		if err != nil && !errors.Is(err, syscall.ENOTDIR) { // a file is of an earlier keyroll
			return err
		}
		err = os.RemoveAll(path)
		if lock != nil {
			lock.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

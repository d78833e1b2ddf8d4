package files

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

const (
	folderMode = 0o700
	fileMode   = 0o600
)

// OS is the operating system's file system.
var OS FS = system{}

type system struct{}

func (system) Create(name string) (Writer, error) {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, err
	}
	return file, nil
}

func (system) Open(name string) (Reader, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return file, nil
}

func (system) Mkdir(name string) error { return os.Mkdir(name, folderMode) }

func (system) Link(file, name string) error { return os.Link(file, name) }

func (system) Rename(file, name string) error { return os.Rename(file, name) }

func (system) Remove(name string) error { return os.Remove(name) }

func (system) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

func (system) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }

func (system) SyncFolder(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

func (system) OpenVolume(folder string) (Volume, error) { return openVolume(folder) }

func (system) Lock(name string) (io.Closer, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: name, Err: err}, file.Close())
	}
	return file, nil
}

// Package files writes all files of keyroll that must survive a power cut.
//
// FS has the file operations that blobs, availability keys, the seal and the data
// folder use. A power cut loses everything that was not synced, and each part
// independently: the contents of a file, and each name in a folder. So contents are
// synced before a name refers to them, and the folder before the caller relies on the
// name; WriteNew, Replace and MkdirAll do both. The package never decides what a file
// contains. Start reading at FS; filestest has a file system that loses everything
// that was not synced.
package files

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
)

// FS is a file system. Names are absolute paths, and errors match those of
// io/fs. Only the owner can access the files and folders that it makes. It may be
// used from many goroutines.
type FS interface {
	// Create makes a file; it fails with fs.ErrExist if the name is taken.
	Create(name string) (Writer, error)
	Open(name string) (Reader, error)
	// Mkdir makes one folder; it fails with fs.ErrExist if the name is taken.
	Mkdir(name string) error
	// Link gives a file one more name; it fails with fs.ErrExist if that is taken.
	Link(file, name string) error
	// Rename gives a file another name, and replaces the file that has that name.
	Rename(file, name string) error
	// Remove removes a file, or a folder that is empty.
	Remove(name string) error
	Stat(name string) (fs.FileInfo, error)
	// ReadDir returns the entries of a folder, in the order of their names.
	ReadDir(name string) ([]fs.DirEntry, error)
	// SyncFolder flushes the names in a folder to stable storage.
	SyncFolder(name string) error
	// OpenVolume opens the volume that a folder is on. It fails with
	// errors.ErrUnsupported if a volume cannot be synced as a whole.
	OpenVolume(folder string) (Volume, error)
	// Lock locks a file, which it makes if necessary, for this process until it is
	// closed. It fails with ErrLocked while another process holds the lock.
	Lock(name string) (io.Closer, error)
}

// Writer is a new file. Sync flushes its contents, not its name, to stable storage.
type Writer interface {
	io.WriteCloser
	Sync() error
}

// Reader is a file opened for reading.
type Reader interface {
	io.ReadSeekCloser
	Stat() (fs.FileInfo, error)
}

// Volume is a file system with all files on it. Sync flushes everything written to
// them to stable storage, and reports a write that failed since the volume was opened.
type Volume interface {
	io.Closer
	Sync() error
}

// ErrLocked means that another process holds a lock.
var ErrLocked = errors.New("locked by another process")

// draftInfix is part of the name of every draft of WriteNew and Replace.
const draftInfix = ".new-"

// draftsOf returns the prefix of the names of a file's drafts: a process that is
// killed may leave one.
func draftsOf(name string) string { return name + draftInfix }

// Draft is a temporary file. It is made and written, then given its final name by
// Link or Replace, and in any case discarded.
type Draft struct {
	fs     FS
	path   string
	file   Writer
	closed bool
}

// NewDraft makes a draft in a folder; its name begins with prefix.
func NewDraft(f FS, folder, prefix string) (*Draft, error) {
	path := filepath.Join(folder, prefix+rand.Text())
	file, err := f.Create(path)
	if err != nil {
		return nil, err
	}
	return &Draft{fs: f, path: path, file: file}, nil
}

func (d *Draft) Write(p []byte) (int, error) { return d.file.Write(p) }

// Link gives the draft a name on the same volume, which is durable when Link returns
// nil. It fails with fs.ErrExist if there is a file of that name; that file's name is
// durable then.
func (d *Draft) Link(name string) error { return d.publish(name, d.fs.Link) }

// Replace is Link, but replaces a file that has the name: after a power cut the name
// refers to the old or to the new file.
func (d *Draft) Replace(name string) error { return d.publish(name, d.fs.Rename) }

func (d *Draft) publish(name string, setName func(file, name string) error) error {
	if err := errors.Join(d.file.Sync(), d.close()); err != nil {
		return err
	}
	err := setName(d.path, name)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.fs.SyncFolder(filepath.Dir(name)); err != nil {
		return err
	}
	return err
}

func (d *Draft) close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	return d.file.Close()
}

// Discard closes the draft and removes its own name.
func (d *Draft) Discard() error {
	closed, removed := d.close(), d.fs.Remove(d.path)
	if errors.Is(removed, fs.ErrNotExist) { // renamed
		removed = nil
	}
	return errors.Join(closed, removed)
}

// WriteNew makes a file with this content. When it returns nil the file is
// durable; an earlier power cut leaves all of it or nothing. It fails with
// fs.ErrExist if there is a file of that name; that file's name is durable then.
func WriteNew(f FS, name string, content []byte) error {
	return write(f, name, content, (*Draft).Link)
}

// Replace makes a file with this content, or replaces it. When it returns nil the
// new content is durable; an earlier power cut leaves all of the old or all of the
// new content.
func Replace(f FS, name string, content []byte) error {
	return write(f, name, content, (*Draft).Replace)
}

func write(f FS, name string, content []byte, publish func(*Draft, string) error) error {
	d, err := NewDraft(f, filepath.Dir(name), draftsOf(filepath.Base(name)))
	if err != nil {
		return err
	}
	if _, err = d.Write(content); err == nil {
		err = publish(d, name)
	}
	discarded := d.Discard()
	if err == nil {
		err = discarded
	}
	return err
}

// MkdirAll makes a folder and its missing parents. All of them are durable when it
// returns nil.
func MkdirAll(f FS, path string) error {
	parent := filepath.Dir(path)
	switch info, err := f.Stat(path); {
	case err == nil && !info.IsDir():
		return &fs.PathError{Op: "mkdir", Path: path, Err: errNotFolder}
	case err == nil:
		return SyncFound(f, parent)
	case !errors.Is(err, fs.ErrNotExist) || parent == path:
		return err
	}
	if err := MkdirAll(f, parent); err != nil {
		return err
	}
	if err := f.Mkdir(path); err != nil && !errors.Is(err, fs.ErrExist) { // another process may have made it
		return err
	}
	return f.SyncFolder(parent)
}

var errNotFolder = errors.New("not a folder")

// SyncFound makes the name of an existing file or folder durable: the process that
// made it may have been killed before it synced the folder. A folder that this process
// may not read is left to the user who owns it.
func SyncFound(f FS, folder string) error {
	if err := f.SyncFolder(folder); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

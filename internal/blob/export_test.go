package blob

import (
	"time"

	"keyroll/internal/files"
)

// Hasten makes a remote store retry without a pause.
func Hasten(s Store) { s.(*remote).pause = time.Millisecond }

// Impatient gives a remote store a short timeout.
func Impatient(s Store) { s.(*remote).requestTimeout = 300 * time.Millisecond }

// SmallPages makes a remote store list few objects at a time.
func SmallPages(s Store) Store {
	s.(*remote).pageSize = 7
	return s
}

// Die releases the lock of a process that keeps blobs in a folder, as its death does.
func Die(s Store) { s.(*folder).lock.Close() }

// OpenOn opens a store in a folder of a file system.
func OpenOn(f files.FS, root string) (Store, error) {
	s, err := openFolderOn(f, root)
	if err != nil {
		return nil, err
	}
	return s, nil
}

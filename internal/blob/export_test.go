package blob

import (
	"time"

	"keyroll/internal/files"
)

// RetryAtOnce makes a remote store retry without a pause.
func RetryAtOnce(s Store) { s.(*remote).pause = time.Millisecond }

// ShortTimeout gives a remote store a short timeout.
func ShortTimeout(s Store) { s.(*remote).requestTimeout = 300 * time.Millisecond }

// SmallPages makes a remote store list few objects at a time.
func SmallPages(s Store) Store {
	s.(*remote).pageSize = 7
	return s
}

// ReleaseLock releases the lock of a process that keeps blobs in a folder, as its death does.
func ReleaseLock(s Store) { s.(*folder).lock.Close() }

// OpenFolderOn opens a store in a folder of a file system.
func OpenFolderOn(f files.FS, root string) (Store, error) {
	s, err := openFolderOn(f, root)
	if err != nil {
		return nil, err
	}
	return s, nil
}

package blob

import "time"

// Hasten makes a remote store give up soon.
func Hasten(s Store) {
	r := s.(*remote)
	r.pause, r.patience = time.Millisecond, 300*time.Millisecond
}

// SmallPages makes a remote store list few objects at a time.
func SmallPages(s Store) Store {
	s.(*remote).pageSize = 7
	return s
}

// Die lets go of what a process holds that keeps blobs in a folder.
func Die(s Store) { s.(*folder).lock.Close() }

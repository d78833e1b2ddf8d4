package blob

import "time"

// Hasten makes a remote store give up soon.
func Hasten(s Store) {
	r := s.(*remote)
	r.pause, r.patience = time.Millisecond, 300*time.Millisecond
}

// Die lets go of what a process holds that keeps blobs in a folder.
func Die(s Store) { s.(*folder).lock.Close() }

package items

import "runtime"

// AwaitSmallPuts returns once n small blobs wait to be stored.
func (s *Store) AwaitSmallPuts(n int) {
	for s.smallPuts.Waiting() != n {
		runtime.Gosched()
	}
}

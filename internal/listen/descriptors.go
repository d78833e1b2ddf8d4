package listen

import (
	"math"
	"syscall"

	"keyroll/api"
	"keyroll/internal/fail"
)

// reserved descriptors are for files that are always open: the database (SQLite: five
// connections of three files; PostgreSQL: 18 sockets), locks, the listener, and a
// margin. Half of the others is for connections of callers; the rest is for files of
// requests: blobs and connections to other services, of which a request needs up to
// perRequest.
const (
	reserved   = 64
	perRequest = 4
	minimum    = reserved + 64
)

// affordable returns for how many connections and simultaneous requests a number of
// descriptors is enough.
func affordable(descriptors int) (connections, requests int) {
	half := max(1, (descriptors-reserved)/2)
	return min(half, maxConnections), min(max(1, half/perRequest), maxRequests)
}

// descriptors returns how many this process may have open.
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
}

// CheckDescriptors refuses limits that the process has too few descriptors for.
func CheckDescriptors(l Limits) error { return checkDescriptors(l, descriptors()) }

func checkDescriptors(l Limits, have int) error {
	if have < minimum {
		return fail.New(api.InvalidArgument, "the process may open only %d files, and keyroll needs %d", have, minimum).
			WithHint("raise the limit: ulimit -n, or LimitNOFILE= of a systemd unit")
	}
	if need := l.Connections + reserved + perRequest; l.Connections > 0 && have < need {
		return fail.New(api.InvalidArgument, "%d connections need %d open files, and the process may open only %d", l.Connections, need, have).
			WithHint("raise the limit, ulimit -n, or lower --max-connections")
	}
	return nil
}

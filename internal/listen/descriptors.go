package listen

import (
	"math"
	"syscall"

	"keyroll/api"
	"keyroll/internal/fail"
)

// reserved descriptors are for what the process has always open: its database
// (SQLite: five connections of three files; PostgreSQL: 18 sockets), locks, the
// listener, and a margin. Half of the others is for connections of callers; the
// rest is for what requests open: blobs and connections to other services, of
// which a request needs up to perRequest.
const (
	reserved   = 64
	perRequest = 4
	fewest     = reserved + 64
)

// affordable returns how many connections and how many requests at once a number
// of descriptors is enough for.
func affordable(descriptors int) (connections, requests int) {
	half := max(1, (descriptors-reserved)/2)
	return min(half, mostConnections), min(max(1, half/perRequest), mostRequests)
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
	if have < fewest {
		return fail.New(api.InvalidArgument, "the process may have %d files open, and keyroll needs %d", have, fewest).
			WithHint("raise the limit: ulimit -n, or LimitNOFILE= of a systemd unit")
	}
	if need := l.Connections + reserved + perRequest; l.Connections > 0 && have < need {
		return fail.New(api.InvalidArgument, "%d connections need %d open files, and the process may have %d", l.Connections, need, have).
			WithHint("raise the limit, ulimit -n, or lower --max-connections")
	}
	return nil
}

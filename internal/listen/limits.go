package listen

import (
	"cmp"
	"net/netip"
	"time"
)

// Limits are the limits of callers. A field that is zero has its default.
type Limits struct {
	// Connections bounds the connections in total, and PerSource those from one
	// address (with IPv6, from one network of 64 bits). At a limit a new connection
	// replaces one without an authenticated request, or an idle one; if there is none,
	// the new one is closed.
	Connections, PerSource int
	// Proxies may open any number of connections, and give the source of a request in
	// X-Forwarded-For: PerSource then bounds the requests of that source.
	Proxies []netip.Prefix
	// Requests is how many authenticated requests run at once; tenants take turns, and
	// each may always run Share of them.
	Requests, Share int

	// Anonymous is how long an unauthenticated request may take, including its headers
	// and its answer.
	Anonymous time.Duration
	// A transfer of an authenticated request must keep Rate, in bytes a second, but
	// may pause for up to Stall.
	Stall time.Duration
	Rate  int
	// Wait is how long an authenticated request waits for its turn.
	Wait time.Duration
}

// Defaults of Limits.
const (
	maxConnections = 4096
	maxRequests    = 1024
	anonymousTime  = 30 * time.Second
	stallTime      = time.Minute
	lowestRate     = 1 << 10
	turnTime       = 10 * time.Second
	// waitingFactor times Requests is how many of one tenant may wait.
	waitingFactor = 4
)

func (l Limits) withDefaults() Limits {
	connections, requests := affordable(descriptors())
	l.Connections = cmp.Or(l.Connections, connections)
	l.PerSource = cmp.Or(l.PerSource, max(1, l.Connections/2))
	l.Requests = cmp.Or(l.Requests, requests)
	l.Share = cmp.Or(l.Share, max(1, l.Requests/16))
	l.Anonymous = cmp.Or(l.Anonymous, anonymousTime)
	l.Stall = cmp.Or(l.Stall, stallTime)
	l.Rate = cmp.Or(l.Rate, lowestRate)
	l.Wait = cmp.Or(l.Wait, turnTime)
	return l
}

// header is the part of Anonymous within which the headers must arrive.
func (l Limits) header() time.Duration { return min(headerTime, l.Anonymous/3) }

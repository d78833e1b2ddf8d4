package listen

import (
	"cmp"
	"net/netip"
	"time"
)

// Limits bound what callers may hold. A field that is zero has its default.
type Limits struct {
	// Connections is how many there may be in total, and PerSource how many
	// from one address (of IPv6, from one network of 64 bits). At a limit a new
	// connection takes the place of one that has authenticated nothing, or
	// that is at rest; if there is none, the new one is closed.
	Connections, PerSource int
	// Proxies may open any number of connections, and say by X-Forwarded-For
	// where a request comes from: PerSource then bounds the requests from there.
	Proxies []netip.Prefix
	// Requests is how many authenticated ones run at once; tenants take turns,
	// and each may run Share of them whatever the others do.
	Requests, Share int

	// Anonymous is how long a request may take that is not authenticated, its
	// headers and its answer included.
	Anonymous time.Duration
	// A transfer of an authenticated request has to keep Rate, in bytes a
	// second, but may rest for up to Stall.
	Stall time.Duration
	Rate  int
	// Wait is how long an authenticated request waits for its turn.
	Wait time.Duration
}

// Defaults of Limits.
const (
	mostConnections = 4096
	mostRequests    = 1024
	anonymousTime   = 30 * time.Second
	stallTime       = time.Minute
	lowestRate      = 1 << 10
	turnTime        = 10 * time.Second
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

// header is the part of Anonymous within which the headers have to arrive.
func (l Limits) header() time.Duration { return min(headerTime, l.Anonymous/3) }

package listen

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// table is a listener that enforces limits on the connections that it has accepted.
type table struct {
	net.Listener
	limits Limits
	log    *slog.Logger
	warn   rate.Sometimes

	mu          sync.Mutex
	connections map[*conn]struct{}
	sources     map[netip.Addr]int // connections, without those of proxies
	forwarded   map[netip.Addr]int // requests that proxies have forwarded
}

func newTable(ln net.Listener, l Limits, log *slog.Logger) *table {
	return &table{Listener: ln, limits: l, log: log, warn: rate.Sometimes{Interval: time.Minute},
		connections: map[*conn]struct{}{}, sources: map[netip.Addr]int{}, forwarded: map[netip.Addr]int{}}
}

// conn is a connection of the table. The table closes it if it has no authenticated
// request for too long, or if the other side does not read.
type conn struct {
	net.Conn
	table   *table
	source  netip.Addr
	proxy   bool
	writing *pace
	watch   *time.Timer // closes it unless a request is authenticated
	closed  sync.Once

	// Guarded by the table's lock.
	known bool // a request on it was authenticated
	idle  bool
	since time.Time // of the last change of idle, initially of its beginning
}

type connKey struct{}

// connOf returns the connection below the TLS connection.
func connOf(c net.Conn) *conn { return c.(*tls.Conn).NetConn().(*conn) }

// Accept implements net.Listener.
func (t *table) Accept() (net.Conn, error) {
	for {
		c, err := t.Listener.Accept()
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			t.warnLimit("no file descriptor is left for a connection")
			t.displace(func(*conn) bool { return true })
			return nil, err // the server tries again
		}
		if err != nil {
			return nil, err
		}
		if kept := t.add(c); kept != nil {
			return kept, nil
		}
		_ = c.Close()
	}
}

func (t *table) warnLimit(what string) {
	t.warn.Do(func() { t.log.Warn("connections are displaced or refused", "reason", what) })
}

// add keeps a connection within the limits; nil means that it does not fit.
func (t *table) add(c net.Conn) *conn {
	address := addressOf(c.RemoteAddr())
	source := sourceOf(address)
	kept := &conn{Conn: c, table: t, source: source, proxy: t.isProxy(address), since: time.Now()}
	kept.known = kept.proxy
	kept.writing = newPace(t.limits, func() { _ = kept.Close() })
	kept.watch = time.AfterFunc(t.limits.Anonymous, func() { _ = kept.Close() })
	if kept.proxy {
		kept.watch.Stop()
	}
	for {
		t.mu.Lock()
		var within func(*conn) bool
		switch {
		case !kept.proxy && t.sources[source] >= t.limits.PerSource:
			within = func(c *conn) bool { return c.source == source && !c.proxy }
		case len(t.connections) >= t.limits.Connections:
			within = func(*conn) bool { return true }
		default:
			t.connections[kept] = struct{}{}
			if !kept.proxy {
				t.sources[source]++
			}
			t.mu.Unlock()
			return kept
		}
		t.mu.Unlock()
		t.warnLimit("there are as many as --max-connections or --max-connections-per-source allows")
		if !t.displace(within) {
			kept.watch.Stop()
			return nil
		}
	}
}

// displace closes a connection to make space for another one: the oldest of the source
// with the most connections without an authenticated request, or else the one that has
// been idle for longest.
func (t *table) displace(within func(*conn) bool) bool {
	t.mu.Lock()
	unknown := map[netip.Addr]int{}
	for c := range t.connections {
		if !c.known && within(c) {
			unknown[c.source]++
		}
	}
	var victim *conn
	better := func(c *conn) bool { // to close than the victim so far
		switch {
		case !within(c) || c.known && !c.idle:
			return false
		case victim == nil:
			return true
		case c.known != victim.known:
			return victim.known
		case !c.known && unknown[c.source] != unknown[victim.source]:
			return unknown[c.source] > unknown[victim.source]
		}
		return c.since.Before(victim.since)
	}
	for c := range t.connections {
		if better(c) {
			victim = c
		}
	}
	t.mu.Unlock()
	if victim == nil {
		return false
	}
	_ = victim.Close()
	return true
}

// stateChanged records the state of a connection.
func (t *table) stateChanged(served net.Conn, state http.ConnState) {
	c := connOf(served)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch state {
	case http.StateActive, http.StateIdle:
		c.idle = state == http.StateIdle
		if c.known {
			c.since = time.Now()
		} else {
			c.watch.Reset(t.limits.Anonymous)
		}
	}
}

// authenticated records that a request on c was authenticated.
func (t *table) authenticated(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.known = true
	c.watch.Stop()
}

// Write implements net.Conn. The connection is closed if the other side does not read.
func (c *conn) Write(p []byte) (int, error) {
	return c.writing.do(func() (int, error) { return c.Conn.Write(p) })
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.closed.Do(func() {
		c.watch.Stop()
		t := c.table
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.connections, c)
		if c.proxy {
			return
		}
		if t.sources[c.source]--; t.sources[c.source] == 0 {
			delete(t.sources, c.source)
		}
	})
	return c.Conn.Close()
}

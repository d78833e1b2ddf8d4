package listen

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// sourceBits is how much of an IPv6 address is one source: a customer of a
// provider has a network of that size, and may use any address in it.
const sourceBits = 64

// addressOf returns the address that a connection comes from.
func addressOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// sourceOf returns what counts as the source of an address.
func sourceOf(a netip.Addr) netip.Addr {
	if a.Is6() {
		network, _ := a.Prefix(sourceBits) // 64 bits fit
		return network.Addr()
	}
	return a
}

func (t *table) isProxy(a netip.Addr) bool {
	for _, p := range t.limits.Proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwardedFor returns where a request that came from a proxy comes from: the
// last address in X-Forwarded-For that is not a proxy itself. What stands
// before it anybody may have written.
func (t *table) forwardedFor(r *http.Request) (netip.Addr, bool) {
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop := strings.TrimSpace(hops[i])
		if host, _, err := net.SplitHostPort(hop); err == nil {
			hop = host
		}
		a, err := netip.ParseAddr(strings.Trim(hop, "[]"))
		if err != nil {
			return netip.Addr{}, false
		}
		if a = a.Unmap().WithZone(""); !t.isProxy(a) {
			return sourceOf(a), true
		}
	}
	return netip.Addr{}, false
}

// enter counts a request that a proxy has forwarded, unless there are too many
// from its source. The caller calls leave after it.
func (t *table) enter(source netip.Addr) (leave func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.forwarded[source] >= t.limits.PerSource {
		return nil, false
	}
	t.forwarded[source]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.forwarded[source]--; t.forwarded[source] == 0 {
			delete(t.forwarded, source)
		}
	}, true
}

package listen

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// sourceBits is the length of the IPv6 prefix that counts as one source: a provider's
// customer has a network of that size, and may use any address in it.
const sourceBits = 64

// addressOf returns the remote address of a connection.
func addressOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// sourceOf returns the source to which an address belongs.
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

// forwardedFor returns the source of a request that a proxy forwarded: the last address
// in X-Forwarded-For that is not a proxy itself. The entries before it may be forged.
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

// enter counts a request that a proxy has forwarded, unless there are too many from its
// source. The caller must call leave after the request.
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

// Package proxytest is a TCP proxy that tests put between a process and a server it
// depends on, to cut connections, to stall them, or to slow them down.
//
// It does not interpret the bytes that it forwards. Start reading at New.
package proxytest

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/time/rate"
)

// Proxy forwards connections to one address.
type Proxy struct {
	listener net.Listener
	network  string
	target   string
	limit    *rate.Limiter
	passed   atomic.Int64

	mu    sync.Mutex
	cut   bool
	stall chan struct{} // if not nil, nothing is forwarded until it is closed
	conns map[net.Conn]bool
}

// New returns a proxy to an address, "tcp" or "unix"; it ends with t.
func New(t testing.TB, network, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, network: network, target: target, conns: map[net.Conn]bool{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.Resume()
		p.Cut()
		serving.Wait()
	})
	return p
}

// Addr is where the proxy listens: 127.0.0.1 and a port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Limit limits the rate of both directions together. It must be called before the first
// connection.
func (p *Proxy) Limit(bytesPerSecond int) {
	p.limit = rate.NewLimiter(rate.Limit(bytesPerSecond), chunk)
}

// Passed returns the number of bytes forwarded, in both directions together.
func (p *Proxy) Passed() int64 { return p.passed.Load() }

// Cut closes all connections and refuses new ones until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		c.Close()
	}
}

// Heal accepts connections again.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// Stall keeps all connections open and forwards nothing until Resume.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stall == nil {
		p.stall = make(chan struct{})
	}
}

// Resume ends Stall.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stall != nil {
		close(p.stall)
		p.stall = nil
	}
}

// track records a connection, or closes it while the proxy is cut.
func (p *Proxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) untrack(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Proxy) serve(near net.Conn) {
	if !p.track(near) {
		return
	}
	defer p.untrack(near)
	far, err := net.Dial(p.network, p.target)
	if err != nil || !p.track(far) {
		return
	}
	defer p.untrack(far)
	var both sync.WaitGroup
	both.Go(func() { p.pass(far, near) })
	both.Go(func() { p.pass(near, far) })
	both.Wait()
}

// chunk is how many bytes are forwarded at a time.
const chunk = 64 << 10

// pass copies one direction. When that ends, it closes both connections.
func (p *Proxy) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, chunk)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			p.mu.Lock()
			stall := p.stall
			p.mu.Unlock()
			if stall != nil {
				<-stall
			}
			if p.limit != nil {
				if p.limit.WaitN(context.Background(), n) != nil {
					return
				}
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
			p.passed.Add(int64(n))
		}
		if err != nil {
			return
		}
	}
}

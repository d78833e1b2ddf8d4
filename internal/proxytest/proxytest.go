// Package proxytest is a TCP proxy that tests put between a process and what it
// needs, to cut it off, to leave it without an answer, or to slow it down.
//
// It looks at no byte that it passes on. Start reading at New.
package proxytest

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/time/rate"
)

// Proxy passes connections on to one address.
type Proxy struct {
	listener net.Listener
	network  string
	target   string
	limit    *rate.Limiter
	passed   atomic.Int64

	mu    sync.Mutex
	cut   bool
	still chan struct{} // not nil: nothing is passed on until it is closed
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

// Limit holds what is passed on, in both directions together, to bytes a second.
// It is set before the first connection comes.
func (p *Proxy) Limit(bytesPerSecond int) {
	p.limit = rate.NewLimiter(rate.Limit(bytesPerSecond), chunk)
}

// Passed returns how many bytes have been passed on, in both directions together.
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

// Heal takes connections again.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// Stall leaves all connections open and passes nothing on until Resume.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.still == nil {
		p.still = make(chan struct{})
	}
}

// Resume ends Stall.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.still != nil {
		close(p.still)
		p.still = nil
	}
}

// keep notes a connection, or closes it while the proxy is cut.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Proxy) serve(near net.Conn) {
	if !p.keep(near) {
		return
	}
	defer p.drop(near)
	far, err := net.Dial(p.network, p.target)
	if err != nil || !p.keep(far) {
		return
	}
	defer p.drop(far)
	var both sync.WaitGroup
	both.Go(func() { p.pass(far, near) })
	both.Go(func() { p.pass(near, far) })
	both.Wait()
}

// chunk is how many bytes are passed on at a time.
const chunk = 64 << 10

// pass copies one direction. Where it ends, both ends of the connection go.
func (p *Proxy) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, chunk)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			p.mu.Lock()
			still := p.still
			p.mu.Unlock()
			if still != nil {
				<-still
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

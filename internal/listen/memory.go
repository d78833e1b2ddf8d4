package listen

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// Memory is a listener that only this process can connect to: keyroll calls its own
// vaults and token endpoint through it. It needs no descriptor, and callers cannot
// exhaust it.
type Memory struct {
	connections chan net.Conn
	closed      chan struct{}
	end         func()
}

// NewMemory returns a listener that is open.
func NewMemory() *Memory {
	m := &Memory{connections: make(chan net.Conn), closed: make(chan struct{})}
	m.end = sync.OnceFunc(func() { close(m.closed) })
	return m
}

// Dial connects to the listener. It waits for Accept.
func (m *Memory) Dial(ctx context.Context) (net.Conn, error) {
	near, far := memoryPipe()
	select {
	case m.connections <- far:
		return near, nil
	case <-m.closed:
		return nil, fmt.Errorf("dial keyroll's own listener: %w", net.ErrClosed)
	case <-ctx.Done():
		return nil, fmt.Errorf("dial keyroll's own listener: %w", ctx.Err())
	}
}

// Accept implements net.Listener.
func (m *Memory) Accept() (net.Conn, error) {
	select {
	case conn := <-m.connections:
		return conn, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; open connections stay open.
func (m *Memory) Close() error {
	m.end()
	return nil
}

// Addr implements net.Listener.
func (m *Memory) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

package listen_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"golang.org/x/net/nettest"

	"keyroll/internal/listen"
)

func TestMemoryConnectsWithinTheProcess(t *testing.T) {
	m := listen.NewMemory()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _ := m.Accept()
		accepted <- conn
	}()
	near, err := m.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	far := <-accepted
	go far.Write([]byte("hello"))
	got := make([]byte, 5)
	if _, err := near.Read(got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Dial(late); !errors.Is(err, context.Canceled) {
		t.Errorf("dial that was given up: %v", err)
	}
	m.Close()
	m.Close()
	if _, err := m.Dial(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial after the end: %v", err)
	}
	if _, err := m.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after the end: %v", err)
	}
	near.Close()
}

func TestConnectionsInMemoryConformToNetConn(t *testing.T) {
	nettest.TestConn(t, func() (near, far net.Conn, stop func(), err error) {
		m := listen.NewMemory()
		accepted := make(chan net.Conn, 1)
		go func() {
			conn, _ := m.Accept()
			accepted <- conn
		}()
		near, err = m.Dial(t.Context())
		if err != nil {
			return nil, nil, nil, err
		}
		far = <-accepted
		return near, far, func() { near.Close(); far.Close() }, nil
	})
}

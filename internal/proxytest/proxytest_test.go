package proxytest_test

import (
	"bufio"
	"net"
	"testing"
	"time"

	"keyroll/internal/proxytest"
)

// echo sends each line back.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					c.Write(append(lines.Bytes(), '\n'))
				}
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, p *proxytest.Proxy) net.Conn {
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func ask(c net.Conn) (string, error) {
	if _, err := c.Write([]byte("hello\n")); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

func TestProxyPassesOnCutsAndHeals(t *testing.T) {
	p := proxytest.New(t, "tcp", echo(t))
	c := dial(t, p)
	if got, err := ask(c); got != "hello\n" {
		t.Fatalf("%q, %v", got, err)
	}
	p.Cut()
	if got, err := ask(c); err == nil {
		t.Errorf("cut: %q", got)
	}
	if got, err := ask(dial(t, p)); err == nil {
		t.Errorf("a new connection while it is cut: %q", got)
	}
	p.Heal()
	if got, err := ask(dial(t, p)); got != "hello\n" {
		t.Errorf("healed: %q, %v", got, err)
	}
}

func TestStalledProxyAnswersLate(t *testing.T) {
	p := proxytest.New(t, "tcp", echo(t))
	c := dial(t, p)
	p.Stall()
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if got, err := ask(c); err == nil {
		t.Errorf("stalled: %q", got)
	}
	c.SetReadDeadline(time.Time{})
	p.Resume()
	if got, err := bufio.NewReader(c).ReadString('\n'); got != "hello\n" {
		t.Errorf("resumed: %q, %v", got, err)
	}
}

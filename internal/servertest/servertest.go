// Package servertest runs a server program for a test. Start reading at Start.
package servertest

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Start runs the program of command, which has to listen on addr, a free port of
// 127.0.0.1, and returns addr when the program accepts connections. The program is
// killed when the test ends.
func Start(t testing.TB, command func(addr string) *exec.Cmd) (addr string) {
	t.Helper()
	const attempts = 5 // another process may take the port meanwhile
	var err error
	for range attempts {
		if addr, err = start(t, command); err == nil {
			return addr
		}
	}
	t.Fatal(err)
	return ""
}

// Setenv sets environment variables, each NAME=value, until t ends.
func Setenv(t testing.TB, env []string) {
	t.Helper()
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}

func start(t testing.TB, command func(addr string) *exec.Cmd) (addr string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr = l.Addr().String()
	if err := l.Close(); err != nil {
		return "", err
	}
	p := command(addr)
	var output bytes.Buffer
	p.Stdout, p.Stderr = &output, &output
	if err := p.Start(); err != nil {
		return "", err
	}
	ended := make(chan struct{})
	go func() {
		_ = p.Wait()
		close(ended)
	}()
	for {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			break
		}
		select {
		case <-ended:
			return "", fmt.Errorf("%s ended: %s", p.Path, &output)
		case <-time.After(time.Millisecond):
		}
	}
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-ended
	})
	return addr, nil
}

package listen_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"keyroll/internal/admit"
	"keyroll/internal/listen"
)

// stage is a server on a listener in memory, whose connections come from any
// address that a test names; time is that of synctest.
type stage struct {
	*testing.T
	memory *listen.Memory
	roots  *x509.CertPool
	ended  chan error // of handlers
	hold   chan struct{}
}

// addressed is a connection from an address.
type addressed struct {
	net.Conn
	from net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.from }

// addressing is a listener whose connections send their address first.
type addressing struct{ *listen.Memory }

func (a addressing) Accept() (net.Conn, error) {
	conn, err := a.Memory.Accept()
	if err != nil {
		return nil, err
	}
	size := make([]byte, 1)
	io.ReadFull(conn, size)
	text := make([]byte, size[0])
	io.ReadFull(conn, text)
	return addressed{conn, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(string(text)), 1))}, nil
}

// runStage runs test on a stage within a bubble of synctest.
func runStage(t *testing.T, limits listen.Limits, test func(s *stage)) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{T: t, memory: listen.NewMemory(), ended: make(chan error, 100), hold: make(chan struct{})}
		config, roots := certify(t)
		s.roots = roots
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() {
			served <- listen.Serve(ctx, addressing{s.memory}, http.HandlerFunc(s.serve), listen.Config{TLS: config, Log: slog.New(slog.DiscardHandler), Limits: &limits})
		}()
		test(s)
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		time.Sleep(24 * time.Hour) // of the bubble: clients notice
	})
}

// serve is a handler: under /known a request is authenticated as one of the tenant in the
// query, under /anonymous it is not.
func (s *stage) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/known" {
		tenant, _ := strconv.ParseInt(r.URL.Query().Get("tenant"), 10, 64)
		if err := admit.Authenticated(r.Context(), tenant); err != nil {
			http.Error(w, err.Error(), http.StatusTooManyRequests)
			return
		}
	}
	var err error
	switch r.URL.Query().Get("act") {
	case "read":
		_, err = io.Copy(io.Discard, r.Body)
	case "write": // until it is cut
		for page := make([]byte, 64<<10); err == nil; {
			_, err = w.Write(page)
		}
	case "events":
		for range 3 {
			time.Sleep(time.Hour)
			fmt.Fprintln(w, "event")
			http.NewResponseController(w).Flush()
		}
	case "hold":
		http.NewResponseController(w).Flush()
		select {
		case <-s.hold:
		case <-r.Context().Done():
		}
	}
	s.ended <- err
	if err == nil {
		io.WriteString(w, "done")
	}
}

// pipe is a connection from an address, without TLS.
func (s *stage) pipe(from string) net.Conn {
	s.Helper()
	conn, err := s.memory.Dial(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	conn.Write(append([]byte{byte(len(from))}, from...))
	time.Sleep(time.Second) // of the bubble: no two are of one age
	return conn
}

// connect is a connection from an address, for HTTP/1.1.
func (s *stage) connect(from string) *tls.Conn {
	s.Helper()
	conn := tls.Client(s.pipe(from), &tls.Config{RootCAs: s.roots, ServerName: "localhost"})
	if err := conn.Handshake(); err != nil {
		s.Fatal(err)
	}
	return conn
}

// request sends a request without a body and returns the status of its answer.
func (s *stage) request(conn net.Conn, path string, header ...string) int {
	s.Helper()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", path, lines(header)); err != nil {
		s.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.Fatal(err)
	}
	if path != "/known?act=hold" {
		io.Copy(io.Discard, resp.Body)
	}
	time.Sleep(time.Millisecond) // of the bubble: the server knows that it has answered
	return resp.StatusCode
}

func lines(header []string) (text string) {
	for _, h := range header {
		text += h + "\r\n"
	}
	return text
}

// isOpen reports whether the server has left a connection open.
func (s *stage) isOpen(conn net.Conn) bool {
	synctest.Wait()
	conn.SetReadDeadline(time.Now().Add(time.Nanosecond))
	_, err := io.Copy(io.Discard, conn)
	conn.SetReadDeadline(time.Time{})
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// http2 is a client that speaks HTTP/2.
func (s *stage) http2(from string) *http.Client {
	t := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: s.roots},
		DialContext: func(context.Context, string, string) (net.Conn, error) { return s.pipe(from), nil }}
	s.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

func certify(t *testing.T) (*tls.Config, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}

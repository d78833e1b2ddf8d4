// Package listen serves HTTP on a listener, and bounds the resources of a caller:
// connections, time, and simultaneous requests.
//
// A request has 30 seconds in total until it is authenticated; afterwards a transfer may
// take any time but must keep a minimum rate in both directions. Handlers call
// admit.Authenticated when a request is authenticated. Memory is the listener through
// which keyroll calls itself; it has no limits.
// Start reading at Serve; table.go counts connections, request.go bounds a
// request, pace.go is the rate, descriptors.go the defaults.
package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of a connection before its handler runs, and while it is idle.
const (
	headerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute
	headerBytes = 64 << 10
	// streams is how many simultaneous requests an HTTP/2 connection may have.
	streams = 128
	// unwindTime is how long handlers may take to return after their connections have
	// been closed.
	unwindTime = 10 * time.Second
)

// Config has the parameters of Serve.
type Config struct {
	TLS *tls.Config
	Log *slog.Logger
	// Grace is how long running requests may take once the server stops.
	Grace time.Duration
	// Limits apply to callers; nil means no limits.
	Limits *Limits
}

// Serve serves ln, by TLS with HTTP/1.1 and HTTP/2, until ctx is done. Then it accepts no
// new connection, lets running requests finish for at most the grace, closes the
// remaining connections, and returns once all handlers have returned. It closes ln.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, c Config) error {
	var running sync.RWMutex // each request holds it for reading
	srv := &http.Server{
		TLSConfig:         c.TLS.Clone(), // because a server changes it
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    headerBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: streams},
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	if c.Limits != nil {
		limits := c.Limits.withDefaults()
		t := newTable(ln, limits, c.Log)
		ln, h = t, newGate(t, limits).bound(h)
		srv.ReadHeaderTimeout = limits.header()
		srv.ConnState = t.stateChanged
		srv.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, connOf(conn))
		}
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !running.TryRLock() {
			return // its connection is already closed
		}
		defer running.RUnlock()
		h.ServeHTTP(w, r)
	})
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Grace)
	defer cancel()
	err := srv.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		c.Log.Warn("requests were cut off when the server stopped", slog.Duration("grace", c.Grace))
		err = srv.Close()
	}
	<-served // ErrServerClosed
	returned := make(chan struct{})
	go func() {
		running.Lock()
		close(returned)
	}()
	select {
	case <-returned:
	case <-time.After(unwindTime):
		err = errors.Join(err, errors.New("stop serving: a request did not end"))
	}
	return err
}

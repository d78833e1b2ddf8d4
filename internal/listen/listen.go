// Package listen serves HTTP on a listener, and bounds what a caller may hold
// there. Memory is the listener through which keyroll calls itself.
//
// Start reading at Serve.
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

// Bounds on what a connection may cost before a handler sees it, and at rest.
const (
	headerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute
	headerBytes = 64 << 10
	// unwindTime is how long handlers get to return after their connections
	// have been cut.
	unwindTime = 10 * time.Second
)

// Serve answers on ln, by TLS with HTTP/1.1 and HTTP/2, until ctx is done. Then
// it takes no new connection, lets running requests finish for at most grace,
// cuts what is left, and returns once all handlers have returned. It closes ln.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, config *tls.Config, log *slog.Logger, grace time.Duration) error {
	var running sync.RWMutex // each request holds it for reading
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !running.TryRLock() {
				return // its connection is already cut
			}
			defer running.RUnlock()
			h.ServeHTTP(w, r)
		}),
		TLSConfig:         config,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := srv.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("requests were cut off when the server stopped", slog.Duration("grace", grace))
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

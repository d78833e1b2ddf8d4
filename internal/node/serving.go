package node

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"keyroll/internal/admit"
	"keyroll/internal/listen"
)

// drainTimeout bounds how long a stop waits for running requests.
const drainTimeout = 20 * time.Second

// serving is the node's service of requests.
type serving struct {
	base   *foundation
	stores *stores
	ctx    context.Context // ends when the node stops to serve
	drain  context.CancelFunc
	begun  bool
	result chan error
	ended  chan struct{}

	mu      sync.Mutex
	refused error // why the node stopped by itself
}

func newServing(ctx context.Context, f *foundation, s *stores) *serving {
	v := &serving{base: f, stores: s, result: make(chan error, 1), ended: make(chan struct{})}
	v.ctx, v.drain = context.WithCancel(context.WithoutCancel(ctx))
	return v
}

// begin serves the listener until stop, and the node's own calls until everything else has
// stopped.
func (s *serving) begin(ctx context.Context, listener net.Listener, handlers http.Handler, id *identity) {
	o := s.base.options
	s.begun, s.base.serves = true, true
	go func() {
		s.result <- listen.Serve(s.ctx, listener, handlers, listen.Config{TLS: id.tls, Log: o.Logger, Grace: drainTimeout, Limits: &o.Limits})
		close(s.ended)
	}()
	own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers.ServeHTTP(w, r.WithContext(admit.Own(r.Context())))
	})
	inside, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		ended <- listen.Serve(inside, s.stores.inside, own, listen.Config{TLS: id.tls, Log: o.Logger, Grace: drainTimeout})
	}()
	s.base.onClose(func() error {
		s.stores.keys.Close() // end would wait for its idle connections
		end()
		return <-ended
	})
}

// refuse stops the node by itself.
func (s *serving) refuse(why error) {
	s.mu.Lock()
	s.refused = why
	s.mu.Unlock()
	s.drain()
}

// refusal returns why the node stopped by itself. It may be called on nil, like stop.
func (s *serving) refusal() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// stop drains running requests.
func (s *serving) stop() error {
	if s == nil {
		return nil
	}
	s.drain()
	if !s.begun {
		return nil
	}
	return <-s.result
}

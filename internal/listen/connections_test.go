package listen_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"keyroll/internal/admit"
	"keyroll/internal/listen"
)

func TestASourceDisplacesItsOwnConnections(t *testing.T) {
	runStage(t, listen.Limits{Connections: 10, PerSource: 2}, func(s *stage) {
		other := s.connect("192.0.2.2")
		old, young := s.pipe(source), s.pipe(source)
		if !s.isOpen(old) || !s.isOpen(young) {
			t.Fatal("cut below the limit")
		}
		known := s.connect(source) // takes the place of the oldest
		if s.isOpen(old) || !s.isOpen(young) || !s.isOpen(other) {
			t.Error("not the oldest of the source was displaced")
		}
		if status := s.request(known, "/known"); status != http.StatusOK {
			t.Errorf("answer: %d", status)
		}
		again := s.connect(source)
		if s.isOpen(young) || !s.isOpen(known) {
			t.Error("one that has authenticated was displaced, and another is there")
		}
		if status := s.request(again, "/known?act=hold"); status != http.StatusOK {
			t.Errorf("answer: %d", status)
		}
		third := s.connect(source) // all have authenticated; one is at rest
		if s.isOpen(known) || !s.isOpen(again) {
			t.Error("not the one at rest was displaced")
		}
		if status := s.request(third, "/known?act=hold"); status != http.StatusOK {
			t.Errorf("answer: %d", status)
		}
		if s.isOpen(s.pipe(source)) {
			t.Error("a connection was taken although all others of its source are in use")
		}
		if !s.isOpen(other) {
			t.Error("another source had to give way")
		}
		close(s.hold)
	})
}

func TestTheSourceWithMostConnectionsLosesOne(t *testing.T) {
	runStage(t, listen.Limits{Connections: 4, PerSource: 3}, func(s *stage) {
		modest := s.pipe("192.0.2.7")
		var greedy []net.Conn
		for range 3 {
			greedy = append(greedy, s.pipe("192.0.2.8"))
		}
		s.isOpen(modest)
		late := s.connect("2001:db8::1")
		if s.isOpen(greedy[0]) || !s.isOpen(greedy[1]) || !s.isOpen(modest) || !s.isOpen(late) {
			t.Error("the wrong one was displaced")
		}
	})
}

// A network of 64 bits is one source.
func TestAddressesOfOneNetworkAreOneSource(t *testing.T) {
	runStage(t, listen.Limits{PerSource: 1}, func(s *stage) {
		first, mapped := s.pipe("2001:db8::1"), s.pipe("::ffff:192.0.2.1")
		s.isOpen(first)
		if second := s.pipe("2001:db8::2"); !s.isOpen(second) || s.isOpen(first) {
			t.Error("two addresses of one network are two sources")
		}
		if other := s.pipe("192.0.2.1"); !s.isOpen(other) || s.isOpen(mapped) {
			t.Error("an address in two forms is two sources")
		}
	})
}

func TestTrustedProxiesNameTheSourceOfRequests(t *testing.T) {
	const proxy = "198.51.100.1"
	limits := listen.Limits{PerSource: 1, Proxies: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}
	from := func(chain string) string { return "X-Forwarded-For: " + chain }
	runStage(t, limits, func(s *stage) {
		holding := s.connect(proxy)
		if status := s.request(holding, "/known?act=hold", from("192.0.2.1")); status != http.StatusOK {
			t.Fatalf("answer: %d", status)
		}
		for chain, want := range map[string]int{
			"192.0.2.1":                 http.StatusTooManyRequests,
			"192.0.2.1:4711":            http.StatusTooManyRequests,
			"192.0.2.1, 198.51.100.9":   http.StatusTooManyRequests, // through another proxy
			"203.0.113.5, 192.0.2.1":    http.StatusTooManyRequests, // the first address may be forged by the caller
			"192.0.2.2":                 http.StatusOK,
			"192.0.2.1, 192.0.2.2":      http.StatusOK,
			"[2001:db8::1]:443":         http.StatusOK,
			"unknown":                   http.StatusOK, // only the proxy is known
			"198.51.100.7":              http.StatusOK,
			"192.0.2.1, not an address": http.StatusOK,
		} {
			if got := s.request(s.connect(proxy), "/known", from(chain)); got != want {
				t.Errorf("%s: %d, want %d", chain, got, want)
			}
		}
		// From other addresses the header is ignored, and connections are limited.
		first := s.connect("203.0.113.7")
		if got := s.request(first, "/known", from("192.0.2.1")); got != http.StatusOK {
			t.Errorf("not a proxy: %d", got)
		}
		s.connect("203.0.113.7")
		if s.isOpen(first) {
			t.Error("the connections of a source that is not a proxy are not bounded")
		}
		close(s.hold)
		if !s.isOpen(holding) {
			t.Error("a connection of the proxy was displaced")
		}
	})
}

func TestRequestsOfTenantsTakeTurns(t *testing.T) {
	limits := listen.Limits{Requests: 2, Share: 1, Wait: time.Minute}
	runStage(t, limits, func(s *stage) {
		ask := func(tenant int) chan int {
			status := make(chan int, 1)
			conn := s.connect(source)
			go func() { status <- s.request(conn, fmt.Sprintf("/known?tenant=%d&act=hold", tenant)) }()
			synctest.Wait()
			return status
		}
		is := func(status chan int, want int) {
			t.Helper()
			select {
			case got := <-status:
				if got != want {
					t.Errorf("%d, want %d", got, want)
				}
			default:
				if want != 0 {
					t.Errorf("waits, want %d", want)
				}
			}
		}
		ask(1)
		ask(1)
		ask(2) // by its share
		waiting := ask(1)
		time.Sleep(limits.Wait - 10*time.Second)
		is(waiting, 0)
		time.Sleep(20 * time.Second)
		is(waiting, http.StatusTooManyRequests)
		admitted := ask(1)
		is(admitted, 0)
		close(s.hold)
		time.Sleep(time.Second)
		is(admitted, http.StatusOK)
	})
}

// exhausted is a listener that has no descriptor for its first connections.
type exhausted struct {
	addressing
	left *int
}

func (e exhausted) Accept() (net.Conn, error) {
	if *e.left--; *e.left >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return e.addressing.Accept()
}

func TestAListenerSurvivesALackOfDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{T: t, memory: listen.NewMemory(), ended: make(chan error, 100)}
		config, roots := certify(t)
		s.roots = roots
		ctx, stop := context.WithCancel(t.Context())
		served, left := make(chan error, 1), 5
		go func() {
			served <- listen.Serve(ctx, exhausted{addressing{s.memory}, &left}, http.HandlerFunc(s.serve),
				listen.Config{TLS: config, Log: slog.New(slog.DiscardHandler), Limits: &listen.Limits{}})
		}()
		if status := s.request(s.connect(source), "/known"); status != http.StatusOK {
			t.Errorf("answer: %d", status)
		}
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
	})
}

func TestOwnCallsAreNotLimited(t *testing.T) {
	if err := admit.Authenticated(t.Context(), 1); err != nil {
		t.Error(err)
	}
}

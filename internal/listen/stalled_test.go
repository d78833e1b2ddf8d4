package listen_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"keyroll/internal/listen"
)

const source = "192.0.2.1"

// sendSlowly sends a byte every five seconds until it is cut.
func sendSlowly(conn io.Writer) {
	for {
		time.Sleep(5 * time.Second)
		if _, err := conn.Write([]byte("a")); err != nil {
			return
		}
	}
}

// endless is a body that sends a piece at intervals.
type endless struct {
	every       time.Duration
	piece, left int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	e.left--
	time.Sleep(e.every)
	return min(len(p), e.piece), nil
}

const head = " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"

// wantClosedWithin reports when a connection was cut.
func (s *stage) wantClosedWithin(conn net.Conn, most time.Duration) {
	s.Helper()
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn() // of TLS, a read would wait for a write
	}
	began := time.Now()
	io.Copy(io.Discard, conn)
	if took := time.Since(began); took > most {
		s.Errorf("cut after %v, not within %v", took, most)
	}
}

func TestARequestWithoutATokenIsClosedAfterThirtySeconds(t *testing.T) {
	const most = 30 * time.Second
	for name, act := range map[string]func(s *stage) net.Conn{
		"no handshake": func(s *stage) net.Conn { return s.pipe(source) },
		"no request":   func(s *stage) net.Conn { return s.connect(source) },
		"HTTP/2 without a request": func(s *stage) net.Conn {
			c := tls.Client(s.pipe(source), &tls.Config{RootCAs: s.roots, ServerName: "localhost", NextProtos: []string{"h2"}})
			c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")) // and no settings
			return c
		},
		"request line drips": func(s *stage) net.Conn { c := s.connect(source); go sendSlowly(c); return c },
		"body drips": func(s *stage) net.Conn {
			c := s.connect(source)
			c.Write([]byte("POST /anonymous?act=read" + head))
			go sendSlowly(c)
			return c
		},
		"body rests": func(s *stage) net.Conn {
			c := s.connect(source)
			c.Write([]byte("POST /anonymous?act=read" + head))
			return c
		},
		"body that is unread": func(s *stage) net.Conn {
			c := s.connect(source)
			c.Write([]byte("POST /anonymous" + head))
			go sendSlowly(c)
			return c
		},
		"at rest after an answer": func(s *stage) net.Conn {
			c := s.connect(source)
			s.request(c, "/anonymous")
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			runStage(t, listen.Limits{}, func(s *stage) { s.wantClosedWithin(act(s), most) })
		})
	}
	t.Run("answer is not read", func(t *testing.T) {
		runStage(t, listen.Limits{}, func(s *stage) {
			began := time.Now()
			c := s.connect(source)
			c.Write([]byte("GET /anonymous?act=write HTTP/1.1\r\nHost: localhost\r\n\r\n"))
			<-s.ended
			if took := time.Since(began); took > most {
				t.Errorf("cut after %v", took)
			}
			c.NetConn().Close()
		})
	})
	t.Run("HTTP/2", func(t *testing.T) {
		runStage(t, listen.Limits{}, func(s *stage) {
			c := s.http2(source)
			if resp, err := c.Get("https://localhost/known"); err != nil || resp.ProtoMajor != 2 { // the connection is authenticated, and the next request is not
				t.Fatal(resp, err)
			}
			<-s.ended
			began := time.Now()
			go c.Post("https://localhost/anonymous?act=read", "", &endless{5 * time.Second, 1, 1000})
			if err := <-s.ended; err == nil || time.Since(began) > most {
				t.Errorf("body: %v after %v", err, time.Since(began))
			}
			began = time.Now()
			resp, err := c.Get("https://localhost/anonymous?act=write")
			if err != nil {
				t.Fatal(err)
			}
			if err := <-s.ended; err == nil || time.Since(began) > most {
				t.Errorf("answer: %v after %v", err, time.Since(began))
			}
			resp.Body.Close()
		})
	})
}

func TestATransferBelowTheMinimumRateIsClosed(t *testing.T) {
	const most = 80 * time.Second // what it may rest, and what it has earned
	clients := map[string]func(s *stage) *http.Client{
		"HTTP/1.1": func(s *stage) *http.Client {
			c := s.http2(source)
			c.Transport.(*http.Transport).ForceAttemptHTTP2 = false
			return c
		},
		"HTTP/2": func(s *stage) *http.Client { return s.http2(source) },
	}
	for protocol, client := range clients {
		for name, c := range map[string]struct {
			body *endless
			fine bool
		}{
			"a byte every five seconds":                  {&endless{5 * time.Second, 1, 1000}, false},
			"nothing after a fast beginning":             {&endless{time.Hour, 1, 1}, false},
			"two KiB a second, for half an hour":         {&endless{2 * time.Second, 4 << 10, 900}, true},
			"rests of 12 seconds that are made good":     {&endless{12 * time.Second, 16 << 10, 100}, true},
			"rests of 50 seconds that are not made good": {&endless{50 * time.Second, 1 << 10, 50}, false},
		} {
			t.Run(protocol+" upload/"+name, func(t *testing.T) {
				runStage(t, listen.Limits{}, func(s *stage) {
					began := time.Now()
					answered := make(chan struct{})
					go func() {
						defer close(answered)
						resp, err := client(s).Post("https://localhost/known?act=read", "", c.body)
						if err == nil {
							resp.Body.Close()
						}
					}()
					err := <-s.ended
					if took := time.Since(began); (err == nil) != c.fine || !c.fine && took > 2*most {
						t.Errorf("%v after %v", err, took)
					}
					<-answered
				})
			})
		}
		t.Run(protocol+" download", func(t *testing.T) {
			runStage(t, listen.Limits{}, func(s *stage) {
				resp, err := client(s).Get("https://localhost/known?act=write")
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				for time.Since(began) < time.Hour { // slow, and fast enough
					time.Sleep(10 * time.Second)
					if _, err := io.ReadFull(resp.Body, make([]byte, 20<<10)); err != nil {
						t.Fatalf("after %v: %v", time.Since(began), err)
					}
				}
				began = time.Now()
				if err := <-s.ended; err == nil || time.Since(began) > most {
					t.Errorf("%v after %v", err, time.Since(began))
				}
				resp.Body.Close()
			})
		})
		t.Run(protocol+" events", func(t *testing.T) {
			runStage(t, listen.Limits{}, func(s *stage) {
				resp, err := client(s).Get("https://localhost/known?act=events")
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(resp.Body)
				if err != nil || string(text) != "event\nevent\nevent\ndone" {
					t.Errorf("%q, %v", text, err)
				}
			})
		})
	}
}

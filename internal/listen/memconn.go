package listen

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// bufferBytes is how much one end of a connection in memory may write before the other
// reads: net.Pipe has no buffer, so two ends that close their TLS session at the same
// time would wait for each other.
const bufferBytes = 64 << 10

// memoryPipe returns the two ends of a connection in memory.
func memoryPipe() (near, far net.Conn) {
	there, back := newFlow(), newFlow()
	return &memoryConn{back, there}, &memoryConn{there, back}
}

// memoryConn is one end.
type memoryConn struct{ in, out *flow }

func (c *memoryConn) Read(p []byte) (int, error)         { return c.in.read(p) }
func (c *memoryConn) Write(p []byte) (int, error)        { return c.out.write(p) }
func (c *memoryConn) LocalAddr() net.Addr                { return memoryAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr               { return memoryAddr{} }
func (c *memoryConn) SetReadDeadline(at time.Time) error { return c.in.setDeadline(&c.in.reader, at) }
func (c *memoryConn) SetWriteDeadline(at time.Time) error {
	return c.out.setDeadline(&c.out.writer, at)
}

func (c *memoryConn) SetDeadline(at time.Time) error {
	_ = c.SetReadDeadline(at)
	return c.SetWriteDeadline(at)
}

func (c *memoryConn) Close() error {
	c.in.close(&c.in.reader)
	c.out.close(&c.out.writer)
	return nil
}

// flow is one direction of a connection.
type flow struct {
	mu             sync.Mutex
	changed        *sync.Cond
	bytes          bytes.Buffer
	reader, writer side
}

// side is the reader or the writer of a flow.
type side struct {
	closed bool
	late   bool // its deadline has passed
	timer  *time.Timer
}

func newFlow() *flow {
	f := &flow{}
	f.changed = sync.NewCond(&f.mu)
	return f
}

func (f *flow) read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.reader.closed:
			return 0, net.ErrClosed
		case f.reader.late:
			return 0, os.ErrDeadlineExceeded
		case f.bytes.Len() > 0 || len(p) == 0:
			n, _ := f.bytes.Read(p)
			f.changed.Broadcast()
			return n, nil
		case f.writer.closed:
			return 0, io.EOF
		}
		f.changed.Wait()
	}
}

func (f *flow) write(p []byte) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.writer.closed:
			return n, net.ErrClosed
		case f.writer.late:
			return n, os.ErrDeadlineExceeded
		case f.reader.closed:
			return n, io.ErrClosedPipe
		case len(p) == 0:
			return n, nil
		}
		if free := min(len(p), bufferBytes-f.bytes.Len()); free > 0 {
			f.bytes.Write(p[:free])
			n, p = n+free, p[free:]
			f.changed.Broadcast()
			continue
		}
		f.changed.Wait()
	}
}

func (f *flow) setDeadline(s *side, at time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	left := time.Until(at)
	s.late = !at.IsZero() && left <= 0
	if !at.IsZero() && left > 0 {
		var timer *time.Timer
		timer = time.AfterFunc(left, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if s.timer == timer { // it was not replaced meanwhile
				s.late = true
				f.changed.Broadcast()
			}
		})
		s.timer = timer
	}
	f.changed.Broadcast()
	return nil
}

func (f *flow) close(s *side) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	f.changed.Broadcast()
}

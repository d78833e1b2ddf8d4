package listen

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/admit"
	"keyroll/internal/fail"
)

const (
	// lingerTime bounds how long the rest of a request is read after its answer.
	lingerTime = 5 * time.Second
	// pieceBytes is the size of the pieces in which an answer is paced: small enough
	// that at the lowest rate one is sent within the time that a transfer may rest.
	pieceBytes = 16 << 10
	// retryAfter is when a request that was refused may be sent again.
	retryAfter = time.Second
)

// past is a deadline that ends an operation at once.
var past = time.Unix(1, 0)

// gate bounds requests.
type gate struct {
	table   *table
	limits  Limits
	queue   admit.Queue
	guesses *guesses
}

func newGate(t *table, l Limits) *gate {
	return &gate{table: t, limits: l, guesses: newGuesses(t.log), queue: admit.Queue{Capacity: l.Requests, Share: l.Share, Waiting: waitingFactor * l.Requests}}
}

// bound returns h with limits on each request.
func (g *gate) bound(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(connKey{}).(*conn)
		source := c.source
		if c.proxy {
			if forwarded, ok := g.table.forwardedFor(r); ok {
				source = forwarded
				leave, ok := g.table.enter(source)
				if !ok {
					refuse(w, busy("there are too many requests from this address"))
					return
				}
				defer leave()
			}
		}
		req := g.begin(w, r, c)
		defer req.end()
		if r.ProtoMajor > 1 {
			w = &writer{ResponseWriter: w, pace: newPace(g.limits, req.stopWriting)}
		}
		ctx := admit.WithGate(r.Context(), req.authenticated)
		r = r.WithContext(admit.WithRefusals(ctx, func(ctx context.Context) { g.guesses.wait(ctx, source) }))
		if r.Body != http.NoBody {
			r.Body = &body{r.Body, newPace(g.limits, req.stopReading), req}
		}
		h.ServeHTTP(w, r)
	})
}

// request is one request under way.
type request struct {
	gate    *gate
	conn    *conn
	http1   bool
	control *http.ResponseController
	total   *time.Timer // of a request that is not authenticated
	leave   func()      // ends its turn

	mu        sync.Mutex // keeps timers from affecting a later request
	ended     bool
	known     bool
	bodyEnded bool
}

func (g *gate) begin(w http.ResponseWriter, r *http.Request, c *conn) *request {
	req := &request{gate: g, conn: c, http1: r.ProtoMajor == 1, control: http.NewResponseController(w), bodyEnded: r.Body == http.NoBody}
	if req.http1 {
		_ = req.control.SetWriteDeadline(time.Time{}) // remove that of the previous request
	}
	req.total = time.AfterFunc(g.limits.Anonymous-g.limits.header(), func() { req.cut(true, true) })
	return req
}

// authenticated waits for the turn of the request's tenant.
func (q *request) authenticated(ctx context.Context, tenant int64) error {
	q.mu.Lock()
	q.known = true
	q.mu.Unlock()
	q.total.Stop()
	q.gate.table.authenticated(q.conn)
	if q.leave != nil {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, q.gate.limits.Wait)
	defer cancel()
	leave, err := q.gate.queue.Enter(waiting, tenant)
	switch {
	case err == nil:
		q.leave = leave
		return nil
	case ctx.Err() != nil:
		return fail.New(api.Unavailable, "the request ended before its turn came").Because(ctx.Err())
	case errors.Is(err, admit.ErrFull):
		return busy("the tenant has too many requests in progress")
	}
	return busy("the request's turn did not come within %v", q.gate.limits.Wait)
}

func busy(format string, args ...any) *fail.Error {
	e := fail.New(api.TooManyRequests, format, args...).WithHint("try again in a moment, as Retry-After says")
	e.RetryAfter = retryAfter
	return e
}

func (q *request) stopReading() { q.cut(true, false) }
func (q *request) stopWriting() { q.cut(false, true) }

// cut makes current and later reads or writes of the request fail.
func (q *request) cut(reading, writing bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return
	}
	if reading {
		_ = q.control.SetReadDeadline(past)
	}
	if writing {
		_ = q.control.SetWriteDeadline(past)
	}
}

// end sets time limits for the rest after the handler has returned: the unsent part of
// the answer, and the unread part of the body.
func (q *request) end() {
	q.total.Stop()
	if q.leave != nil {
		q.leave()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	left := q.gate.limits.Stall
	if !q.known {
		left = q.gate.limits.Anonymous
	}
	if !q.http1 {
		_ = q.control.SetWriteDeadline(time.Now().Add(left))
	} else if !q.bodyEnded {
		_ = q.control.SetReadDeadline(time.Now().Add(min(lingerTime, left)))
	}
}

// body is a request's body, which has to arrive at the lowest rate.
type body struct {
	io.ReadCloser
	pace *pace
	of   *request
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.pace.do(func() (int, error) { return b.ReadCloser.Read(p) })
	if err == io.EOF {
		b.of.mu.Lock()
		b.of.bodyEnded = true
		b.of.mu.Unlock()
	}
	return n, err
}

// writer paces the answer to a request over HTTP/2, where a slow reader blocks only its
// own stream. Over HTTP/1.1 the connection's own Write is paced.
type writer struct {
	http.ResponseWriter
	pace *pace
}

func (w *writer) Write(p []byte) (n int, err error) {
	for first := true; err == nil && (first || len(p) > 0); first = false {
		piece := p[:min(len(p), pieceBytes)]
		p = p[len(piece):]
		var m int
		m, err = w.pace.do(func() (int, error) { return w.ResponseWriter.Write(piece) })
		n += m
	}
	return n, err
}

// FlushError is for http.ResponseController.
func (w *writer) FlushError() error {
	_, err := w.pace.do(func() (int, error) { return 0, http.NewResponseController(w.ResponseWriter).Flush() })
	return err
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// refuse answers in the form of the service API, because it is not known yet for which
// interface the request is.
func refuse(w http.ResponseWriter, e *fail.Error) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Retry-After", strconv.Itoa(int(e.RetryAfter.Seconds())))
	status := fail.Lookup(e.Code).Status
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: e.Detail, Code: e.Code, Hint: e.Hint})
}

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"keyroll/api"
)

// content is the body of an upload. It records how its reader ended, because the
// transport only reports that the request was not written.
type content struct {
	r     io.Reader
	size  int64 // -1: not known
	n     int64
	begun atomic.Bool // Read was called
}

// contentError is a failure of the caller's own reader.
type contentError struct{ err error }

func (e *contentError) Error() string { return e.err.Error() }

// Close implements io.ReadCloser; it does not close the caller's reader.
func (c *content) Close() error { return nil }

func (c *content) touched() bool { return c.begun.Load() }

func (c *content) Read(p []byte) (int, error) {
	c.begun.Store(true)
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err == nil && c.n == c.size {
		// The last bytes are returned only if none follow: the transport stops at
		// the stated length, and the server would take the content for complete.
		var more int
		var next [1]byte
		more, err = io.ReadFull(c.r, next[:])
		c.n += int64(more)
	}
	switch {
	case c.size >= 0 && c.n > c.size:
		return 0, problemf(api.InvalidArgument, "the content is longer than its stated %d bytes", c.size)
	case err == io.EOF && c.size >= 0 && c.n < c.size:
		return n, problemf(api.Truncated, "the content ended after %d of its %d bytes", c.n, c.size)
	case err != nil && err != io.EOF:
		return n, &contentError{err}
	}
	return n, err
}

// upload runs an operation that sends content. The content's reader is not closed; it
// may be read from for a moment after a refusal.
func upload[In, Out any](ctx context.Context, c *Client, op api.Operation[In, Out], in In, sent *content) (out Out, err error) {
	var body io.Reader = sent
	if sent.size == 0 {
		if _, err := io.Copy(io.Discard, body); err != nil { // the transport would not read it
			return out, c.unreachableError(ctx, err)
		}
		body = http.NoBody
	}
	req, err := c.request(ctx, op.Meta, in, body)
	if err != nil {
		return out, err
	}
	req.ContentLength = sent.size
	// The server can refuse the request before the content is sent.
	req.Header.Set("Expect", "100-continue")
	return result[Out](c, c.uploads, req)
}

// download reads content from a response. It ends with io.EOF only if it is complete.
type download struct {
	c       *Client
	ctx     context.Context // of the request whose answer this is
	body    io.ReadCloser
	n, size int64 // size -1: not known
	// why requests the content after the first n bytes, to learn why the transfer was
	// cut off; nil if the operation has no ranges.
	why  func(n int64) error
	ends func() error // reads the trailer that says how the content ended; nil if there is none
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.body.Read(p)
	d.n += int64(n)
	if err == io.EOF && d.ends != nil {
		var p *api.Problem
		switch ended := d.ends(); {
		case ended == nil:
			return n, io.EOF
		case errors.As(ended, &p):
			return n, p
		}
		err = io.ErrUnexpectedEOF
	}
	if err == nil || err == io.EOF && (d.size < 0 || d.n == d.size) {
		return n, err
	}
	if d.why != nil && d.ctx.Err() == nil {
		var p *api.Problem
		if errors.As(d.why(d.n), &p) && p.Code == api.Damaged {
			return n, p
		}
	}
	detail := fmt.Sprintf("the transfer from %s was cut off after %d bytes", d.c.base, d.n)
	if d.size >= 0 {
		detail = fmt.Sprintf("the transfer from %s ended after %d of %d bytes", d.c.base, d.n, d.size)
	}
	return n, d.c.truncatedError(d.ctx, detail, err)
}

// WriteTo writes all of it in large pieces, one system call each.
func (d *download) WriteTo(w io.Writer) (n int64, err error) {
	buf := make([]byte, frameBytes)
	for {
		m, err := d.Read(buf)
		if m > 0 {
			written, err := w.Write(buf[:m])
			n += int64(written)
			if err != nil {
				return n, err
			}
		}
		switch {
		case err == io.EOF:
			return n, nil
		case err != nil:
			return n, err
		}
	}
}

func (d *download) Close() error { return d.body.Close() }

// receive runs an operation that returns content. byteRange, unless empty, is the Range
// header, and first the offset at which that range begins.
func (c *Client) receive(ctx context.Context, m api.Meta, in any, byteRange string, first int64) (io.ReadCloser, error) {
	r, err := c.request(ctx, m, in, nil)
	if err != nil {
		return nil, err
	}
	if byteRange != "" {
		r.Header.Set("Range", byteRange)
	}
	r.Header.Set(api.TrailerHeader, api.ProblemTrailer)
	resp, err := c.do(c.downloads, r, api.Bytes)
	if err != nil {
		return nil, err
	}
	if byteRange != "" && resp.StatusCode != http.StatusPartialContent {
		resp.Body.Close()
		return nil, problemf(api.Unavailable, "%s sent the whole content instead of the requested range", c.base)
	}
	d := &download{c: c, ctx: ctx, body: resp.Body, size: resp.ContentLength}
	if resp.Header.Get(api.TrailerHeader) == api.ProblemTrailer {
		d.ends = func() error { return problemIn(resp.Trailer.Get(api.ProblemTrailer)) }
	}
	if resp.Header.Get("Accept-Ranges") == "bytes" {
		d.why = func(n int64) error { return c.refusalAt(ctx, m, in, first+n) }
	}
	return d, nil
}

// problemIn reads the trailer of content; nil means that the content is complete.
func problemIn(trailer string) error {
	var p *api.Problem
	if err := json.Unmarshal([]byte(trailer), &p); err != nil {
		return fmt.Errorf("trailer %s: %w", api.ProblemTrailer, err)
	}
	if p != nil {
		return p
	}
	return nil
}

// refusalAt requests the content from an offset on and returns why that is refused:
// once bytes have been sent, a server can only cut the connection.
func (c *Client) refusalAt(ctx context.Context, m api.Meta, in any, off int64) error {
	r, err := c.request(ctx, m, in, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Range", fmt.Sprintf("bytes=%d-", off))
	resp, err := c.do(c.downloads, r, api.Bytes)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// followed is an operation that reports its progress, one event per line.
type followed[In, Event, Progress, Report any] struct {
	op   api.Operation[In, Event]
	what string // its name in messages
	// parts returns what an event has: one of the three.
	parts func(Event) (*Progress, *Report, *api.Problem)
}

// follow runs the operation and reads its events up to its report.
func (f followed[In, Event, Progress, Report]) follow(ctx context.Context, c *Client, in In, progress func(Progress)) (none Report, err error) {
	r, err := c.request(ctx, f.op.Meta, in, nil)
	if err != nil {
		return none, err
	}
	resp, err := c.do(c.calls, r, api.Lines)
	if err != nil {
		return none, err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var e Event
		if err := lines.Decode(&e); err != nil {
			return none, c.truncatedError(ctx, "the "+f.what+" at "+c.base+" was cut off before its report", err)
		}
		now, report, problem := f.parts(e)
		switch {
		case problem != nil:
			return none, problem
		case report != nil:
			return *report, nil
		case now != nil && progress != nil:
			progress(*now)
		}
	}
}

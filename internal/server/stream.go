package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"keyroll/api"
	"keyroll/internal/fail"
)

// download is a response with content. Nothing is sent before its first byte, so that
// an earlier failure can still be answered with a problem.
type download struct {
	w       http.ResponseWriter
	control *http.ResponseController
	kind    string
	status  int
	size    int64 // -1: not known
	n       int64
	began   bool
	last    []byte      // the last byte of content of known size, sent only after success
	refusal http.Header // headers that are added to a problem
	trailer bool        // the caller accepts a trailer that says how the content ended
}

func newDownload(w http.ResponseWriter, kind string) *download {
	return &download{w: w, control: http.NewResponseController(w), kind: kind, status: http.StatusOK, size: -1, refusal: http.Header{}}
}

func (d *download) begin() {
	if d.began {
		return
	}
	d.began = true
	d.w.Header().Set("Content-Type", d.kind)
	if d.size >= 0 {
		d.w.Header().Set("Content-Length", strconv.FormatInt(d.size, 10))
	} else if d.trailer {
		d.w.Header().Set(api.TrailerHeader, api.ProblemTrailer)
		d.w.Header().Set("Trailer", api.ProblemTrailer)
	}
	d.w.WriteHeader(d.status)
}

func (d *download) Write(p []byte) (int, error) {
	if d.size >= 0 && d.n+int64(len(p)) > d.size {
		return 0, fail.New(api.Internal, "content is longer than its stated %d bytes", d.size)
	}
	d.begin()
	send := p
	if len(p) > 0 && d.n+int64(len(p)) == d.size {
		send = p[:len(p)-1]
		d.last = []byte{p[len(p)-1]}
	}
	n, err := d.w.Write(send)
	if err == nil {
		n = len(p)
	}
	d.n += int64(n)
	return n, err
}

// send answers with what write writes. After the first byte a failure cuts the
// connection, so that the caller sees an incomplete transfer, never a complete one. A
// caller that accepts a trailer gets the failure of content of unknown size there.
func (h *handler) send(r *http.Request, d *download, write func(w io.Writer) error) {
	d.trailer = r.Header.Get(api.TrailerHeader) == api.ProblemTrailer
	err := write(d)
	if err == nil && d.size >= 0 && d.n != d.size {
		err = fail.New(api.Internal, "content has %d of its stated %d bytes", d.n, d.size)
	}
	if err != nil {
		p := h.reportFailure(r.Context(), err)
		if !d.began {
			for _, name := range []string{"Accept-Ranges", "Content-Range"} {
				d.w.Header().Del(name)
			}
			maps.Copy(d.w.Header(), d.refusal)
			writeProblem(d.w, p)
			return
		}
		if d.trailer && d.size < 0 {
			d.end((*api.Problem)(p))
			return
		}
		_ = d.control.Flush() // so that the caller sees that the response has begun
		panic(http.ErrAbortHandler)
	}
	d.begin()
	_, _ = d.w.Write(d.last)
	if d.trailer && d.size < 0 {
		d.end(nil)
	}
	_ = d.control.Flush()
}

// end writes the trailer that says how the content ended: null, or a problem.
func (d *download) end(p *api.Problem) {
	text, _ := json.Marshal(p) // strings and numbers
	var ascii strings.Builder  // HTTP fields are ASCII (RFC 9110, section 5.5)
	for _, r := range string(text) {
		if r < utf8.RuneSelf {
			ascii.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&ascii, `\u%04x`, unit)
		}
	}
	d.w.Header().Set(api.ProblemTrailer, ascii.String())
}

// chooseRange returns the response to a request for a file, and how the part that it sends
// is chosen: all of the file, or the one range that r requests.
func chooseRange(w http.ResponseWriter, r *http.Request) (*download, func(api.File) (off, n int64, err error)) {
	header := r.Header.Get("Range")
	if r.Header.Get("If-Range") != "" {
		header = "" // files have no validator that could match (RFC 9110, 13.1.5)
	}
	d := newDownload(w, string(api.Bytes))
	return d, func(file api.File) (off, n int64, err error) {
		part, err := parseRange(header, file.Bytes)
		if err != nil {
			if fail.Is(err, api.RangeNotSatisfiable) {
				d.refusal.Set("Content-Range", "bytes */"+strconv.FormatInt(file.Bytes, 10))
			}
			return 0, 0, err
		}
		d.size = part.length
		w.Header().Set("Accept-Ranges", "bytes")
		if part.partial {
			d.status = http.StatusPartialContent
			w.Header().Set("Content-Range", part.contentRange(file.Bytes))
		}
		return part.off, part.length, nil
	}
}

// sendEvents answers with the progress of run, one event per line. The last event is the
// report or, if the first event has been sent, the problem. A caller that has disconnected
// gets neither.
func sendEvents[Progress, Report, Event any](h *handler, w http.ResponseWriter, r *http.Request,
	run func(progress func(Progress)) (Report, error), of func(*Progress, *Report, *api.Problem) Event) {
	d := newDownload(w, string(api.Lines))
	lines := json.NewEncoder(d)
	ctx, disconnected := context.WithCancel(r.Context())
	defer disconnected()
	r = r.WithContext(ctx)
	event := func(p *Progress, report *Report, problem *api.Problem) error {
		err := errors.Join(lines.Encode(of(p, report, problem)), d.control.Flush())
		if err != nil {
			disconnected() // net/http may end the request's context a moment later
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return err
	}
	h.send(r, d, func(io.Writer) error {
		report, err := run(func(p Progress) {
			_ = event(&p, nil, nil) // the context ends when the caller disconnects
		})
		if err != nil && d.began && !fail.Abandoned(ctx, err) {
			return event(nil, nil, (*api.Problem)(h.reportFailure(ctx, err)))
		}
		if err != nil {
			return err
		}
		fillLists(&report)
		return event(nil, &report, nil)
	})
}

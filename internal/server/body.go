package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/httpcheck"
)

const (
	// maxJSON is the largest JSON body in bytes.
	maxJSON = 1 << 20
	// jsonTimeout is how long a JSON body may take to arrive.
	jsonTimeout = 30 * time.Second
	// lingerTimeout and lingerBytes limit what is read and discarded after a refusal.
	lingerTimeout = 2 * time.Second
	lingerBytes   = 64 << 20
)

// checkQuery refuses ambiguous queries: a parameter that is malformed, without a
// value, or given twice.
func checkQuery(query string) error {
	if query == "" {
		return nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return fail.New(api.InvalidArgument, "the query is malformed").Because(err)
	}
	for pair := range strings.SplitSeq(query, "&") {
		if !strings.Contains(pair, "=") {
			return fail.New(api.InvalidArgument, "the query has a part that is not of the form name=value")
		}
	}
	for name, all := range values {
		if len(all) > 1 {
			return fail.New(api.InvalidArgument, "%s: is given %d times", location("query."+name), len(all))
		}
	}
	return nil
}

// readJSON replaces r's body by one that has been read completely. The deadline that it
// sets is reset by BodyReadTimeout of the operation.
func readJSON(w http.ResponseWriter, r *http.Request) error {
	tooLarge := fail.New(api.TooLarge, "the body is larger than %d bytes", maxJSON)
	if r.ContentLength > maxJSON {
		return tooLarge
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(jsonTimeout))
	data, err := io.ReadAll(io.LimitReader(r.Body, maxJSON+1))
	if err != nil {
		return truncated(int64(len(data)), r.ContentLength, err)
	}
	if len(data) > maxJSON {
		return tooLarge
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	return nil
}

// decodeJSON decodes a body; its errors contain nothing of it.
func decodeJSON(data []byte, v any) error {
	if err := httpcheck.CheckJSON(data); err != nil {
		return err
	}
	err := json.Unmarshal(data, v)
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return fail.New(api.InvalidArgument, "is not JSON, at byte %d", syntax.Offset)
	}
	return fail.New(api.InvalidArgument, "has a member of another type than expected")
}

func encodeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func truncated(n, size int64, err error) *fail.Error {
	if size < 0 {
		return fail.New(api.Truncated, "the transfer was cut off after %d bytes", n).Because(err)
	}
	return fail.New(api.Truncated, "the transfer ended after %d of its %d bytes", n, size).Because(err)
}

// upload is a request's content. Read returns fail Truncated for a transfer that is cut
// off, or ends before its stated length.
type upload struct {
	body    io.Reader
	size    int64 // -1: not stated
	n       int64
	ended   bool
	http1   bool
	expects bool // the caller sends nothing before 100 (Continue) (RFC 9110, 10.1.1)
	control *http.ResponseController
}

type uploadKey struct{}

func newUpload(w http.ResponseWriter, r *http.Request) *upload {
	u := &upload{body: r.Body, size: r.ContentLength, control: http.NewResponseController(w),
		http1: r.ProtoMajor == 1, expects: r.Header.Get("Expect") != ""}
	_ = u.control.EnableFullDuplex() // fails for HTTP/2, which does not need it
	return u
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.body.Read(p)
	u.n += int64(n)
	if err != nil {
		u.ended = true
	}
	if err != nil && err != io.EOF {
		err = truncated(u.n, u.size, err)
	}
	return n, err
}

// linger reads and discards what the caller still sends after a refusal. Over HTTP/1.1
// a connection that is closed with unread content is reset, and the caller would see
// the reset instead of the response.
func (u *upload) linger() {
	if !u.http1 || u.ended || u.n == 0 && u.expects {
		return
	}
	_ = u.control.Flush()
	_ = u.control.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.Copy(io.Discard, io.LimitReader(u.body, lingerBytes))
}

package client

import (
	"net/http"
	"strconv"
	"time"
)

// A server that is too busy refuses a request with 429 before it has done anything,
// and says in Retry-After when to send it again. The client does so, waiting at most
// longestWait each time and Options.Patience in all; then it returns the refusal.
const (
	shortestWait = 100 * time.Millisecond
	longestWait  = 10 * time.Second
	patienceTime = time.Minute
)

// sendWithRetry sends r, and sends it again while the server is too busy.
func (c *Client) sendWithRetry(by *http.Client, r *http.Request) (*http.Response, error) {
	for waited := time.Duration(0); ; {
		resp, err := by.Do(r)
		if err != nil || resp.StatusCode != http.StatusTooManyRequests {
			return resp, err
		}
		wait := min(max(retryAfter(resp), shortestWait), longestWait)
		if waited += wait; waited > c.patience || !rewind(r) {
			return resp, nil
		}
		resp.Body.Close()
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
}

// retryAfter returns how long to wait according to Retry-After, which has seconds or a
// date (RFC 9110, section 10.2.3).
func retryAfter(resp *http.Response) time.Duration {
	text := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return time.Until(at)
	}
	return time.Second
}

// rewind makes the body of r ready to be sent again, and reports whether that was
// possible. The content of an upload can be sent again if none of it was read.
func rewind(r *http.Request) bool {
	switch body := r.Body.(type) {
	case nil:
		return true
	case *content:
		return !body.touched()
	}
	if r.GetBody == nil {
		return r.Body == http.NoBody
	}
	body, err := r.GetBody()
	if err != nil {
		return false
	}
	r.Body = body
	return true
}

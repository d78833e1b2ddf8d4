package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// busy refuses its first requests, and records all requests with their times.
type busy struct {
	refusals   int
	retryAfter string
	reads      bool // the body, before it refuses
	bodies     []string
	at         []time.Duration
	began      time.Time
}

func (b *busy) RoundTrip(r *http.Request) (*http.Response, error) {
	b.at = append(b.at, time.Since(b.began))
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}
	refuse := b.refusals != 0
	if r.Body != nil && (!refuse || b.reads) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		b.bodies = append(b.bodies, string(text))
	}
	if refuse {
		b.refusals--
		resp.StatusCode = http.StatusTooManyRequests
		resp.Header.Set("Retry-After", b.retryAfter)
	}
	return resp, nil
}

func TestBusyServerIsRetriedAfterTheTimeItNames(t *testing.T) {
	text := func() io.Reader { return strings.NewReader("text") }
	upload := func() io.Reader { return &content{r: text(), size: 4} }
	none := func() io.Reader { return nil }
	for name, c := range map[string]struct {
		server busy
		body   func() io.Reader
		status int
		at     []time.Duration // in seconds
		bodies int
	}{
		"at once":                             {busy{}, text, 200, []time.Duration{0}, 1},
		"no body":                             {busy{refusals: 1, retryAfter: "2"}, none, 200, []time.Duration{0, 2}, 0},
		"a body is sent again":                {busy{refusals: 2, retryAfter: "2", reads: true}, text, 200, []time.Duration{0, 2, 4}, 3},
		"an upload that was not begun":        {busy{refusals: 2, retryAfter: "3"}, upload, 200, []time.Duration{0, 3, 6}, 1},
		"an upload that was begun":            {busy{refusals: 2, retryAfter: "3", reads: true}, upload, 429, []time.Duration{0}, 1},
		"an hour is not waited":               {busy{refusals: 1, retryAfter: "3600"}, none, 200, []time.Duration{0, 10}, 0},
		"it does not say":                     {busy{refusals: 1}, none, 200, []time.Duration{0, 1}, 0},
		"it never has time":                   {busy{refusals: -1, retryAfter: "10"}, none, 429, []time.Duration{0, 10, 20, 30, 40, 50, 60}, 0},
		"a date (2000-01-01 is the bubble's)": {busy{refusals: 1, retryAfter: "Sat, 01 Jan 2000 00:00:07 GMT"}, none, 200, []time.Duration{0, 7}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.server.began = time.Now()
				r, err := http.NewRequestWithContext(t.Context(), "POST", "https://localhost/", c.body())
				if err != nil {
					t.Fatal(err)
				}
				resp, err := (&Client{patience: patienceTime}).sendWithRetry(&http.Client{Transport: &c.server}, r)
				if err != nil || resp.StatusCode != c.status || len(c.server.at) != len(c.at) || len(c.server.bodies) != c.bodies {
					t.Fatalf("%v, %v, %v, %q", resp, err, c.server.at, c.server.bodies)
				}
				for i, at := range c.at {
					if c.server.at[i] != at*time.Second {
						t.Errorf("asked at %v", c.server.at)
					}
				}
				for _, body := range c.server.bodies {
					if body != "text" {
						t.Errorf("sent %q", c.server.bodies)
					}
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r, _ := http.NewRequestWithContext(ctx, "GET", "https://localhost/", nil)
		_, err := (&Client{patience: patienceTime}).sendWithRetry(&http.Client{Transport: &busy{refusals: -1, retryAfter: "10", began: time.Now()}}, r)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller that no longer waits: %v", err)
		}
	})
}

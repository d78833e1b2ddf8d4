package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"

	"keyroll/api"
)

// shape is how the input of one operation becomes a request.
type shape struct {
	path  map[string][]int // index of the field of each path parameter
	query map[string][]int
	body  []int // index of the JSON body, nil without one
}

// shapes has the shape of each operation, by its name.
var shapes = sync.OnceValue(func() map[string]shape {
	all := map[string]shape{}
	for _, m := range api.Operations() {
		s := shape{path: map[string][]int{}, query: map[string][]int{}}
		for _, f := range reflect.VisibleFields(m.In) {
			if name := f.Tag.Get("path"); name != "" {
				s.path[name] = f.Index
			} else if name := f.Tag.Get("query"); name != "" {
				s.query[name] = f.Index
			} else if f.Name == "Body" {
				s.body = f.Index
			}
		}
		all[m.Name] = s
	}
	return all
})

// request makes the request of an operation; content, if any, is its body.
func (c *Client) request(ctx context.Context, m api.Meta, in any, content io.Reader) (*http.Request, error) {
	s, v := shapes()[m.Name], reflect.ValueOf(in)
	address := c.base
	for part := range strings.SplitSeq(strings.TrimPrefix(m.Path, "/"), "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			name = strings.TrimSuffix(name, "}")
			value := fmt.Sprint(v.FieldByIndex(s.path[name]))
			if value == "" {
				return nil, problemf(api.InvalidArgument, "%s is empty", name)
			}
			part = escape(value)
		}
		address += "/" + part
	}
	query := url.Values{}
	for name, index := range s.query {
		if f := v.FieldByIndex(index); !f.IsZero() {
			query.Set(name, fmt.Sprint(f))
		}
	}
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	if s.body != nil {
		data, err := json.Marshal(v.FieldByIndex(s.body).Interface())
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, m.Method, address, content)
	if err != nil {
		return nil, err
	}
	if m.Sends != api.NoBody {
		r.Header.Set("Content-Type", string(m.Sends))
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.tenant != "" {
		r.Header.Set(api.TenantHeader, url.PathEscape(c.tenant))
	}
	return r, nil
}

// escape makes a name one segment of a path. The segments . and .. would otherwise
// be removed as relative steps (RFC 3986, section 5.2.4).
func escape(name string) string {
	if name == "." || name == ".." {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

// do sends r and returns the response if it has the media type that the operation
// returns. A problem document is returned as an error.
func (c *Client) do(by *http.Client, r *http.Request, returns api.Body) (*http.Response, error) {
	resp, err := c.sendWithRetry(by, r)
	if err != nil {
		return nil, c.unreachableError(r.Context(), err)
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if resp.StatusCode/100 == 2 && kind == string(returns) {
		return resp, nil
	}
	defer resp.Body.Close()
	const largest = 1 << 20
	var p api.Problem
	if kind == "application/problem+json" && json.NewDecoder(io.LimitReader(resp.Body, largest)).Decode(&p) == nil && p.Code != "" {
		return nil, &p
	}
	return nil, problemf(api.Unavailable, "the server at %s is not keyroll: it answered %s", c.base, resp.Status)
}

// call runs an operation whose result is JSON.
func call[In, Out any](ctx context.Context, c *Client, op api.Operation[In, Out], in In) (Out, error) {
	r, err := c.request(ctx, op.Meta, in, nil)
	if err != nil {
		var none Out
		return none, err
	}
	return result[Out](c, c.calls, r)
}

func result[Out any](c *Client, by *http.Client, r *http.Request) (Out, error) {
	var none, out Out
	resp, err := c.do(by, r, api.JSON)
	if err != nil {
		return none, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return none, c.truncatedError(r.Context(), "the response of "+c.base+" is incomplete or malformed", err)
	}
	if list, ok := any(out).(interface{ Unshown() []string }); ok && c.damaged != nil && len(list.Unshown()) > 0 {
		c.damaged(list.Unshown())
	}
	return out, nil
}

func problemf(code api.Code, format string, args ...any) *api.Problem {
	return &api.Problem{Type: "about:blank", Title: string(code), Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Package client calls the service API of keyroll: one method an operation,
// with the types of package api.
//
// An operation that fails returns an *api.Problem: the server's own, or one
// made here when the server was not reached (Unavailable), a transfer ended
// early (Truncated) or an input cannot be sent (InvalidArgument). When the
// caller's context ends, its error is returned instead. Content streams in both
// directions and is never held whole. The token goes to the server in
// Options.URL and nowhere else: redirects are not followed.
// Start reading at New; operation.go lists the methods.
package client

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"keyroll/api"
)

const (
	connectTime = 10 * time.Second
	// answerTime is how long an answer may take to begin. An upload has no such
	// limit: its answer begins when all content has been stored.
	answerTime = 5 * time.Minute
	// frameBytes is the largest piece of content that a server may send at a
	// time: a segment of content goes in one, not in many small ones.
	frameBytes = 256 << 10
	// refusalTime is how long an upload waits to be refused before it sends
	// content all the same.
	refusalTime = 5 * time.Second
)

// Options says which server a Client calls, and as whom.
type Options struct {
	URL   string // https://HOST:PORT
	Token string // bearer token
	// CA is the certificates, as PEM, that the server's must come from; empty
	// means those that the system trusts.
	CA []byte
	// Tenant, unless empty, is the name or the GUID of the tenant that calls are
	// meant for: the server refuses them if the token is another tenant's.
	Tenant string
	// Patience is how long a call waits for a server that is too busy, as often
	// as it asks to; default: a minute.
	Patience time.Duration
	// Damaged, unless nil, is told what a list could not show, entry by entry:
	// List.Damaged of each answer, of which the calling goroutine tells.
	Damaged func(entries []string)
}

// Client calls one server. It is safe for concurrent use.
type Client struct {
	base      string // URL without a slash at its end
	token     string
	tenant    string
	damaged   func([]string)
	patience  time.Duration
	calls     *http.Client
	uploads   *http.Client
	downloads *http.Client
}

// New returns a client. It does not connect yet; options that cannot work are
// InvalidArgument.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, problemf(api.InvalidArgument, "server URL %q is not of the form https://HOST:PORT", o.URL)
	}
	for _, c := range []byte(o.Token) {
		if c <= ' ' || c >= 0x7f {
			return nil, problemf(api.InvalidArgument, "the token holds a character that no token has")
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(o.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(o.CA) {
			return nil, problemf(api.InvalidArgument, "the CA certificates are not PEM")
		}
	}
	calls := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTime}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   connectTime,
		ResponseHeaderTimeout: answerTime,
		ExpectContinueTimeout: refusalTime,
		IdleConnTimeout:       time.Minute,
		HTTP2:                 &http.HTTP2Config{MaxReadFrameSize: frameBytes},
		ForceAttemptHTTP2:     true, // an upload that is refused midway is answered in order
		DisableCompression:    true, // lengths are those of the content
	}
	uploads := calls.Clone()
	uploads.ResponseHeaderTimeout = 0
	// A download has a connection of its own: HTTP/2 would cut it into frames and
	// bound it by a window, for streams beside it that are not there.
	downloads := calls.Clone()
	downloads.ForceAttemptHTTP2, downloads.HTTP2, downloads.TLSNextProto = false, nil, map[string]func(string, *tls.Conn) http.RoundTripper{}
	downloads.TLSClientConfig = config.Clone()
	downloads.TLSClientConfig.NextProtos = []string{"http/1.1"}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{
		base: "https://" + u.Host, token: o.Token, tenant: o.Tenant, damaged: o.Damaged, patience: cmp.Or(o.Patience, patienceTime),
		calls:     &http.Client{Transport: calls, CheckRedirect: stay},
		uploads:   &http.Client{Transport: uploads, CheckRedirect: stay},
		downloads: &http.Client{Transport: downloads, CheckRedirect: stay},
	}, nil
}

// Close closes connections that are at rest.
func (c *Client) Close() {
	c.calls.CloseIdleConnections()
	c.uploads.CloseIdleConnections()
	c.downloads.CloseIdleConnections()
}

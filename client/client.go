// Package client calls the service API of keyroll: one method an operation,
// with the types of package api.
//
// An operation that fails returns an *api.Problem: the server's own, or one
// made here when the server was not reached (Unavailable), a transfer ended
// early (Truncated) or an input cannot be sent (InvalidArgument). When the
// caller's context ends, its error is returned instead. Content is streamed in both
// directions and is never held in memory as a whole. The token is sent only to the
// server in Options.URL: redirects are not followed.
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
	connectTimeout = 10 * time.Second
	// responseTimeout is how long a response may take to begin. An upload has no such
	// limit: its response begins when all content has been stored.
	responseTimeout = 5 * time.Minute
	// frameBytes is the largest HTTP/2 frame that a server may send, so that a
	// segment of content needs one frame, not many small ones.
	frameBytes = 256 << 10
	// idleConnections is how many connections for downloads are kept for the next ones:
	// a program may read many files at a time.
	idleConnections = 64
	// continueTimeout is how long an upload waits for a refusal or for 100 (Continue)
	// before it sends content without it.
	continueTimeout = 5 * time.Second
)

// Options says which server a Client calls, and with which token.
type Options struct {
	URL   string // https://HOST:PORT
	Token string // bearer token
	// CA is the certificates, as PEM, of the authorities that may have issued the
	// server's certificate. Default: those that the system trusts.
	CA []byte
	// Tenant, unless empty, is the name or the GUID of the tenant that calls are
	// meant for: the server refuses them if the token belongs to another tenant.
	Tenant string
	// Patience is how long a call waits in all, over several retries, for a server
	// that is too busy. Default: a minute.
	Patience time.Duration
	// Damaged, unless nil, is called with the List.Damaged of each response that has
	// one, on the goroutine that made the call.
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
			return nil, problemf(api.InvalidArgument, "the token has a character that is not allowed in a token")
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
		DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   connectTimeout,
		ResponseHeaderTimeout: responseTimeout,
		ExpectContinueTimeout: continueTimeout,
		IdleConnTimeout:       time.Minute,
		HTTP2:                 &http.HTTP2Config{MaxReadFrameSize: frameBytes},
		ForceAttemptHTTP2:     true, // an upload that is refused midway is answered in order
		DisableCompression:    true, // lengths are those of the content
	}
	uploads := calls.Clone()
	uploads.ResponseHeaderTimeout = 0
	// A download has a connection of its own: the frames and flow control of HTTP/2
	// would slow it down, and it shares the connection with no other stream.
	downloads := calls.Clone()
	downloads.MaxIdleConnsPerHost = idleConnections
	downloads.ForceAttemptHTTP2, downloads.HTTP2, downloads.TLSNextProto = false, nil, map[string]func(string, *tls.Conn) http.RoundTripper{}
	downloads.TLSClientConfig = config.Clone()
	downloads.TLSClientConfig.NextProtos = []string{"http/1.1"}
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{
		base: "https://" + u.Host, token: o.Token, tenant: o.Tenant, damaged: o.Damaged, patience: cmp.Or(o.Patience, patienceTime),
		calls:     &http.Client{Transport: calls, CheckRedirect: noRedirect},
		uploads:   &http.Client{Transport: uploads, CheckRedirect: noRedirect},
		downloads: &http.Client{Transport: downloads, CheckRedirect: noRedirect},
	}, nil
}

// Close closes idle connections.
func (c *Client) Close() {
	c.calls.CloseIdleConnections()
	c.uploads.CloseIdleConnections()
	c.downloads.CloseIdleConnections()
}

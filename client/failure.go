package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"

	"keyroll/api"
)

// notReached tells why no answer came. The text of err is not shown whole: it
// holds the request's URL, and with it names.
func (c *Client) notReached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var p *api.Problem
	if errors.As(err, &p) { // of an upload's content
		return p
	}
	var content *contentError
	if errors.As(err, &content) {
		return content.err
	}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		p := problemf(api.Unavailable, "%s shows a certificate that is not trusted: %v", c.base, untrusted.Err)
		p.Hint = "name the certificate of the server's authority: caFile in server.json of its data folder"
		return p
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	var netErr net.Error
	reason := err.Error()
	if errors.As(err, &netErr) && netErr.Timeout() {
		reason = "no answer in time"
	}
	p = problemf(api.Unavailable, "%s was not reached: %s", c.base, reason)
	p.Hint = "start it with keyroll serve"
	return p
}

// broken is what an answer that does not come to its end is.
func (c *Client) broken(ctx context.Context, detail string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return problemf(api.Truncated, "%s: %v", detail, err)
}

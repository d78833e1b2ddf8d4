package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"

	"keyroll/api"
)

// unreachableError returns the problem for a request without a response. It does not show
// the whole text of err, which contains the request's URL and thereby names.
func (c *Client) unreachableError(ctx context.Context, err error) error {
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
	var otherName x509.HostnameError
	if errors.As(err, &otherName) {
		p := problemf(api.Unavailable, "the certificate of %s is not valid for %q, only for: %s", c.base, otherName.Host, namesOf(otherName.Certificate))
		p.Hint = "use one of these names or addresses in the server's URL"
		return p
	}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		p := problemf(api.Unavailable, "%s has a certificate that is not trusted: %v", c.base, untrusted.Err)
		p.Hint = "use the certificate authority of the server: caFile in server.json of its data folder names it"
		return p
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	var netErr net.Error
	reason := err.Error()
	if errors.As(err, &netErr) && netErr.Timeout() {
		reason = "it did not answer in time"
	}
	p = problemf(api.Unavailable, "%s cannot be reached: %s", c.base, reason)
	p.Hint = "check the address, and that keyroll serve runs there"
	return p
}

// namesOf lists the names and addresses that a certificate is for.
func namesOf(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, address := range c.IPAddresses {
		names = append(names, address.String())
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// truncatedError returns the error of a response that is incomplete.
func (c *Client) truncatedError(ctx context.Context, detail string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return problemf(api.Truncated, "%s: %v", detail, err)
}

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
	var otherName x509.HostnameError
	if errors.As(err, &otherName) {
		p := problemf(api.Unavailable, "the certificate that %s shows is not for %q: it is for %s", c.base, otherName.Host, namesOf(otherName.Certificate))
		p.Hint = "use one of these names or addresses in --server or KEYROLL_SERVER"
		return p
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

// broken is what an answer that does not come to its end is.
func (c *Client) broken(ctx context.Context, detail string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return problemf(api.Truncated, "%s: %v", detail, err)
}

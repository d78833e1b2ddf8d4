package ca

import (
	"crypto/tls"
	"net"
	"time"
)

// ServerCertificate returns a new server certificate.
func (c *CA) ServerCertificate(names []string, ips []net.IP, now time.Time) (tls.Certificate, error) {
	return c.serverCertificate(names, ips, now)
}

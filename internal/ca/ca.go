// Package ca is keyroll's own certificate authority: it signs the certificate of the
// listener, so that a new installation has TLS without any configuration, and clients
// need to trust one certificate that does not change.
//
// Its key is stored in the database under the seal, so that every node has it. It signs
// only server certificates, and its key never leaves the package. Start reading at Open;
// listeners use TLS.
package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/seal"
	"keyroll/internal/store"
)

const (
	secretName = "certificate authority"
	caLife     = 10 * 365 * 24 * time.Hour
	leafLife   = 90 * 24 * time.Hour
	// renewal is the age at which a running listener gets a new certificate.
	renewal = leafLife / 2
	// skew is how long before its creation a certificate is valid, for clients whose
	// clock is slow.
	skew = time.Hour
)

// CA signs server certificates. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Open returns the authority of the database. The first call creates it, valid for ten
// years; every later one, on any node, returns the same.
func Open(ctx context.Context, db *store.DB, s *seal.Seal) (*CA, error) {
	var text []byte
	err := db.InTx(ctx, func(tx *store.Tx) (err error) {
		text, err = seal.Secret(ctx, tx, s, secretName, func() ([]byte, error) { return create(time.Now()) })
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	defer clear(text)
	return parse(text)
}

// create returns a new certificate and its key as PEM.
func create(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "keyroll certificate authority"},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	return append(encode(cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...), nil
}

func encode(cert []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
}

// serial returns a serial number of 127 random bits (RFC 5280, 4.1.2.2: positive, at most 20 bytes).
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

func parse(text []byte) (*CA, error) {
	pair, err := tls.X509KeyPair(text, text) // checks that key and certificate belong together
	if err != nil {
		return nil, fail.New(api.Damaged, "open certificate authority: its key and certificate cannot be parsed").Because(err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, fail.New(api.Damaged, "open certificate authority: it was not made by keyroll")
	}
	return &CA{pair.Leaf, key}, nil
}

// PEM returns the authority's certificate, which clients must trust.
func (c *CA) PEM() []byte { return encode(c.cert.Raw) }

// serverCertificate returns a new server certificate for names, wildcards among them, and
// addresses, valid for 90 days from now on, with a key of its own.
func (c *CA) serverCertificate(names []string, ips []net.IP, now time.Time) (tls.Certificate, error) {
	if !now.Before(c.cert.NotAfter) {
		return tls.Certificate{}, fail.New(api.Conflict, "the certificate authority expired at %s", c.cert.NotAfter.UTC().Format(time.DateTime))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	end := now.Add(leafLife)
	if end.After(c.cert.NotAfter) {
		end = c.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: "keyroll"},
		DNSNames:     names,
		IPAddresses:  ips,
		NotBefore:    now.Add(-skew),
		NotAfter:     end,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key.Public(), c.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, nil
}

// TLS returns the settings of a listener for names and ips. Its certificate is created
// now, and replaced after half of its lifetime, so that a server that runs for long
// never presents an expired one.
func (c *CA) TLS(names []string, ips []net.IP, now func() time.Time) (*tls.Config, error) {
	leaf, err := c.serverCertificate(names, ips, now())
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			if now().Sub(leaf.Leaf.NotBefore) > renewal {
				next, err := c.serverCertificate(names, ips, now())
				if err != nil {
					return nil, err
				}
				leaf = next
			}
			current := leaf
			return &current, nil
		},
	}, nil
}

package ca_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/ca"
	"keyroll/internal/fail"
	"keyroll/internal/seal"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

var (
	names = []string{"*.vault.localhost", "*.managedhsm.localhost", "localhost"}
	ips   = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
)

func openSeal(t *testing.T) *seal.Seal {
	t.Helper()
	s, err := seal.Open(context.Background(), "file://"+filepath.Join(t.TempDir(), "seal"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t *testing.T, db *store.DB, s *seal.Seal) *ca.CA {
	t.Helper()
	c, err := ca.Open(context.Background(), db, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func roots(t *testing.T, c *ca.CA) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.PEM()) {
		t.Fatalf("not PEM: %s", c.PEM())
	}
	return pool
}

func TestAuthorityAndItsCertificatesStayValidAfterARestart(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := openSeal(t)
		first, second := open(t, db, s), open(t, db, s)
		if !bytes.Equal(first.PEM(), second.PEM()) {
			t.Fatal("a second start made another authority")
		}
		leaf, err := second.ServerCertificate(names, ips, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots(t, first), DNSName: "contoso.vault.localhost"}); err != nil {
			t.Error(err)
		}
		if bytes.Contains(first.PEM(), []byte("PRIVATE")) {
			t.Error("PEM shows the key")
		}
	})
}

func TestAuthorityCannotBeDecryptedUnderAnotherSeal(t *testing.T) {
	db := storetest.One(t)
	open(t, db, openSeal(t))
	if _, err := ca.Open(context.Background(), db, openSeal(t)); !fail.Is(err, api.Damaged) {
		t.Errorf("got %v", err)
	}
}

func TestServerCertificateCoversOnlyItsNames(t *testing.T) {
	c := open(t, storetest.One(t), openSeal(t))
	now := time.Now()
	leaf, err := c.ServerCertificate(names, ips, now)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(name string, at time.Time, usage x509.ExtKeyUsage) error {
		_, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots(t, c), DNSName: name, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	day := 24 * time.Hour
	for _, c := range []struct {
		name  string
		at    time.Duration
		usage x509.ExtKeyUsage
		ok    bool
	}{
		{"a.vault.localhost", 0, x509.ExtKeyUsageServerAuth, true},
		{"hsm.managedhsm.localhost", 0, x509.ExtKeyUsageServerAuth, true},
		{"localhost", 0, x509.ExtKeyUsageServerAuth, true},
		{"127.0.0.1", 0, x509.ExtKeyUsageServerAuth, true},
		{"::1", 0, x509.ExtKeyUsageServerAuth, true},
		{"localhost", 89 * day, x509.ExtKeyUsageServerAuth, true},
		{"localhost", 91 * day, x509.ExtKeyUsageServerAuth, false},
		{"localhost", -2 * time.Hour, x509.ExtKeyUsageServerAuth, false},
		{"localhost", 0, x509.ExtKeyUsageClientAuth, false},
		{"a.b.vault.localhost", 0, x509.ExtKeyUsageServerAuth, false},
		{"vault.localhost.example", 0, x509.ExtKeyUsageServerAuth, false},
		{"127.0.0.2", 0, x509.ExtKeyUsageServerAuth, false},
	} {
		if err := verify(c.name, now.Add(c.at), c.usage); (err == nil) != c.ok {
			t.Errorf("%s at %s for %v: %v", c.name, c.at, c.usage, err)
		}
	}
	other, err := c.ServerCertificate(names, ips, now)
	if err != nil {
		t.Fatal(err)
	}
	if other.PrivateKey.(*ecdsa.PrivateKey).Equal(leaf.PrivateKey) || other.Leaf.SerialNumber.Cmp(leaf.Leaf.SerialNumber) == 0 {
		t.Error("two leaves share key or serial number")
	}
	if leaf.Leaf.IsCA {
		t.Error("a leaf may sign")
	}
	if _, err := c.ServerCertificate(names, ips, now.Add(3651*day)); !fail.Is(err, api.Conflict) || !strings.Contains(err.Error(), "expired at") {
		t.Errorf("an ended authority signs: %v", err)
	}
}

func TestListenerRenewsItsCertificateBeforeItExpires(t *testing.T) {
	c := open(t, storetest.One(t), openSeal(t))
	now := time.Now()
	config, err := c.TLS(names, ips, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	show := func() *x509.Certificate {
		cert, err := config.GetCertificate(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		return cert.Leaf
	}
	first := show()
	now = now.Add(40 * 24 * time.Hour)
	if !show().Equal(first) {
		t.Error("renewed too early")
	}
	for range 20 { // 1000 days
		now = now.Add(50 * 24 * time.Hour)
		if cert := show(); now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
			t.Fatalf("at %s the certificate of %s to %s is shown", now, cert.NotBefore, cert.NotAfter)
		}
	}
}

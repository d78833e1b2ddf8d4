package cmdlet

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
)

// pemOf writes a block; label is its type, with "encrypted " before it where its
// headers say so as OpenSSL writes them.
func pemOf(label string, der []byte) string {
	b := &pem.Block{Bytes: der}
	var encrypted bool
	if b.Type, encrypted = strings.CutPrefix(label, "encrypted "); encrypted {
		b.Headers = map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}
	}
	return string(pem.EncodeToMemory(b))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestTheKeyOfAPEMFileIsFoundOrTheErrorSaysWhyNot(t *testing.T) {
	private, other := must(rsa.GenerateKey(rand.Reader, 2048)), must(rsa.GenerateKey(rand.Reader, 2048))
	ec := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(private))
	pkcs8 := pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(private)))
	certificate := pemOf("CERTIFICATE", []byte("whatever it is"))
	for name, file := range map[string]string{
		"PKCS #1": pkcs1, "PKCS #8": pkcs8, "CRLF": strings.ReplaceAll(pkcs1, "\n", "\r\n"), "byte order mark": "\ufeff" + pkcs1,
		"text before": "Bag Attributes\n  friendlyName: x\n" + pkcs8, "certificate before": certificate + certificate + pkcs8, "certificate after": pkcs8 + certificate,
		"twice": pkcs1 + pkcs8, "public key too": pemOf("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(&private.PublicKey))) + pkcs8,
		"UTF-16": "\xff\xfe" + strings.Join(strings.Split(pkcs8, ""), "\x00") + "\x00",
	} {
		if key, err := readPEM([]byte(file)); err != nil || !key.Equal(private) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for want, files := range map[string][]string{
		"the file is not PEM":                                                     {"", "hello", pkcs8[27:]},
		"it may be DER or PKCS #12":                                               {string(must(x509.MarshalPKCS8PrivateKey(private)))},
		"a PEM block of the file is damaged or incomplete":                        {pkcs8[:200], certificate + pkcs8[:200], strings.Replace(pkcs8, "END PRIVATE", "END PUBLIC", 1)},
		"the private key is encrypted":                                            {pemOf("ENCRYPTED PRIVATE KEY", []byte("x")), pemOf("encrypted RSA PRIVATE KEY", []byte("x")), certificate + pemOf("encrypted EC PRIVATE KEY", []byte("x"))},
		"the private key is an EC key, not an RSA key":                            {pemOf("EC PARAMETERS", []byte("x")) + pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ec))), pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ec)))},
		"the private key is not an RSA key":                                       {pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ed)))},
		"the private key is in the OpenSSH format":                                {pemOf("OPENSSH PRIVATE KEY", []byte("x"))},
		"the private key cannot be read":                                          {pemOf("PRIVATE KEY", []byte("x")), pemOf("RSA PRIVATE KEY", []byte("x"))},
		"the file has more than one private key":                                  {pkcs1 + pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(other))},
		"the file has a certificate, but no private key":                          {certificate},
		"the file has a public key, but no private key":                           {pemOf("PUBLIC KEY", []byte("x"))},
		"the file has a certificate request and a public key, but no private key": {pemOf("CERTIFICATE REQUEST", []byte("x")) + pemOf("RSA PUBLIC KEY", []byte("x"))},
	} {
		for i, file := range files {
			_, err := readPEM([]byte(file))
			if !fail.Is(err, api.InvalidArgument) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %d: %v", want, i, err)
			}
		}
	}
}

// -WhatIf also refuses an invalid file.
func TestAKeyFileIsReadBeforeAnyRequest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ec.pem")
	file := pemOf("EC PRIVATE KEY", []byte("x"))
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"", " -WhatIf"} {
		r := newRecorder()
		if got := refusal(t, r, "Add-AzKeyVaultKey Contoso-A Key001 -KeyFilePath '"+path+"' -Destination HSM"+how); !strings.Contains(got, "is an EC key") || len(r.calls) > 0 {
			t.Errorf("%q, %v", got, r.calls)
		}
	}
}

func FuzzPEM(f *testing.F) {
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		key, err := readPEM(bytes.Clone(file))
		if (key == nil) != (err != nil) {
			t.Fatal(key, err)
		}
	})
}

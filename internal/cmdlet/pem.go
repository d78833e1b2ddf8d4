package cmdlet

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

// readPEM returns the only RSA private key of a file in PEM, in PKCS #1 or PKCS #8.
// The file may have certificates and other blocks too. An error describes what the
// file has instead, without any of its content.
func readPEM(file []byte) (*rsa.PrivateKey, error) {
	refused := func(why string) error {
		return fail.New(api.InvalidArgument, "import key: %s", why).
			WithHint("use a file with one unencrypted RSA private key in PEM: openssl rsa -in FILE -out FILE.pem")
	}
	text, err := DecodeText(file)
	if err != nil {
		return nil, err
	}
	var found *rsa.PrivateKey
	var others []string
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if bytes.Contains(rest, []byte("-----BEGIN")) {
				return nil, refused("a PEM block of the file is damaged or incomplete")
			}
			break
		}
		key, other := privateKey(block)
		clear(block.Bytes)
		switch {
		case key == nil && strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, refused("the private key " + other)
		case key == nil:
			others = append(others, other)
		case found != nil && !found.Equal(key):
			return nil, refused("the file has more than one private key")
		default:
			found = key
		}
	}
	switch {
	case found != nil:
		return found, nil
	case others != nil:
		return nil, refused("the file has " + strings.Join(others, " and ") + ", but no private key")
	case bytes.HasPrefix(file, []byte{0x30}):
		return nil, refused("the file is not PEM; it may be DER or PKCS #12")
	}
	return nil, refused("the file is not PEM")
}

// blockNames describes the content of other blocks.
var blockNames = map[string]string{
	"CERTIFICATE": "a certificate", "TRUSTED CERTIFICATE": "a certificate", "X509 CERTIFICATE": "a certificate", "X509 CRL": "a revocation list",
	"CERTIFICATE REQUEST": "a certificate request", "NEW CERTIFICATE REQUEST": "a certificate request",
	"PUBLIC KEY": "a public key", "RSA PUBLIC KEY": "a public key", "EC PARAMETERS": "parameters of an EC key",
}

// privateKey returns the RSA key of a block, or describes what the block is instead.
func privateKey(block *pem.Block) (key *rsa.PrivateKey, other string) {
	switch {
	case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
		if other = blockNames[block.Type]; other == "" {
			other = "something else"
		}
		return nil, other
	case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, "is encrypted"
	case block.Type == "EC PRIVATE KEY":
		return nil, "is an EC key, not an RSA key"
	case block.Type == "DSA PRIVATE KEY":
		return nil, "is a DSA key, not an RSA key"
	case block.Type == "OPENSSH PRIVATE KEY":
		return nil, "is in the OpenSSH format"
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, ""
	}
	switch parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); key := parsed.(type) {
	case *rsa.PrivateKey:
		return key, ""
	case *ecdsa.PrivateKey:
		return nil, "is an EC key, not an RSA key"
	default:
		if err == nil {
			return nil, "is not an RSA key"
		}
		return nil, "cannot be read: it is neither PKCS #1 nor PKCS #8"
	}
}

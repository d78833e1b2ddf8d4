// Package seal encrypts keyroll's own secrets at rest: the keys of the embedded
// vault, the keys of its certificate authority and of its token signer.
//
// A seal is named by a URL, at present always of a file with 32 random bytes. A sealed
// secret is bound to a label and can be decrypted only with that label. The package
// never reveals the seal's key: a Seal prints as [seal]. Start reading at Open; the
// secrets in the database, and the binding of a database to one seal, are in secret.go.
package seal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"path/filepath"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/files"
)

// format is the first byte of everything sealed; it names the construction:
// AES-256-GCM with a random nonce under HKDF-SHA-256(seal key, label), the
// label being the additional data as well.
const format = 1

// Seal encrypts and decrypts small secrets. It is safe for concurrent use.
type Seal struct {
	key []byte
	id  string
}

// Open opens the seal at a URL. The only kind is a file, file:///ABSOLUTE/PATH: 32 bytes,
// created at first use, readable only by its owner.
func Open(_ context.Context, rawURL string) (*Seal, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fail.New(api.InvalidArgument, "seal: %q is not a URL", rawURL).Because(err)
	}
	if u.Scheme != "file" || u.Host != "" || !filepath.IsAbs(u.Path) || u.RawQuery != "" || u.Fragment != "" {
		return nil, fail.New(api.InvalidArgument, "seal: %q is not of the form file:///ABSOLUTE/PATH", rawURL)
	}
	key, err := keyFile(files.OS, filepath.Clean(u.Path))
	if err != nil {
		return nil, err
	}
	return fromKey(key), nil
}

func fromKey(key []byte) *Seal {
	return &Seal{key: key, id: hex.EncodeToString(derive(key, "keyroll seal id", 16))}
}

// ID identifies the seal and reveals nothing about its key.
func (s *Seal) ID() string { return s.id }

// Seal encrypts plaintext and binds it to label.
func (s *Seal) Seal(label string, plaintext []byte) []byte {
	return s.aead(label).Seal([]byte{format}, nil, plaintext, []byte(label))
}

// Open decrypts a result of Seal for the same label. Anything else, and any change, is
// fail Damaged.
func (s *Seal) Open(label string, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != format {
		return nil, fail.New(api.Damaged, "open %s: it is not sealed in a known format", label)
	}
	plaintext, err := s.aead(label).Open(nil, nil, sealed[1:], []byte(label))
	if err != nil {
		return nil, fail.New(api.Damaged, "open %s: it cannot be decrypted under seal %s", label, s.id).Because(err)
	}
	return plaintext, nil
}

// aead returns the cipher of one label. A key for each label keeps the number
// of random nonces under one key far below 2^32 (NIST SP 800-38D, 8.3).
func (s *Seal) aead(label string) cipher.AEAD {
	key := derive(s.key, "keyroll seal "+label, 32)
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("seal: " + err.Error()) // 32 bytes always make a cipher
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("seal: " + err.Error())
	}
	return aead
}

func derive(key []byte, info string, n int) []byte {
	out, err := hkdf.Key(sha256.New, key, nil, info, n)
	if err != nil {
		panic("seal: " + err.Error()) // n is far below HKDF's limit
	}
	return out
}

// Format prints [seal], whatever the verb.
func (s *Seal) Format(f fmt.State, _ rune) { io.WriteString(f, "[seal]") }

// LogValue prints [seal] in structured logs.
func (s *Seal) LogValue() slog.Value { return slog.StringValue("[seal]") }

// MarshalText prints [seal] in JSON and text encodings.
func (s *Seal) MarshalText() ([]byte, error) { return []byte("[seal]"), nil }

package material

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"testing"
)

// What is made can be read again, and a private key is never taken for that of another
// public key.
func TestKeysAreReadAsTheyWereMade(t *testing.T) {
	var privates, publics [][]byte
	for _, r := range []Request{{Type: "RSA"}, {Type: "EC"}, {Type: "EC-HSM", Curve: "P-521"}} {
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		k, err := r.Generate(func(bits int) (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, bits) })
		if err != nil {
			t.Fatal(err)
		}
		private, public, err := Encode(k)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := PublicOf(private, r.Type); err != nil || !bytes.Equal(again, public) {
			t.Errorf("%s: %v", r.Type, err)
		}
		if _, err := PublicOf(private, map[bool]string{true: "EC", false: "RSA"}[IsRSA(r.Type)]); err == nil {
			t.Errorf("%s is taken for a key of the other type", r.Type)
		}
		privates, publics = append(privates, private), append(publics, public)
	}
	for i, private := range privates {
		for j, public := range publics {
			if _, err := ParsePrivate(private, public); (err == nil) != (i == j) {
				t.Errorf("private key %d, public key %d: %v", i, j, err)
			}
		}
	}
}

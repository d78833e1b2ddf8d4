package vaulttest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"testing"
)

func TestKeysDifferAndDecrypt(t *testing.T) {
	seen := map[string]bool{}
	for _, bits := range []int{2048, 3072} {
		for range 10 {
			key, err := RSA(bits)
			if err != nil {
				t.Fatal(err)
			}
			if seen[key.N.String()] {
				t.Fatal("two keys are the same")
			}
			seen[key.N.String()] = true
			sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, []byte("secret"), nil)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := rsa.DecryptOAEP(sha256.New(), nil, key, sealed, nil)
			if err != nil || string(plain) != "secret" {
				t.Fatalf("%q, %v", plain, err)
			}
		}
	}
}

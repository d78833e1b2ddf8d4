package vault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"testing"

	"keyroll/internal/vault/material"
)

// FuzzParseBackup reads what only this package can seal, as if it could not be trusted.
func FuzzParseBackup(f *testing.F) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	private, _, err := material.Encode(signer)
	if err != nil {
		f.Fatal(err)
	}
	good := backup{Name: "k", Versions: []backupVersion{{
		Version: newVersionID(), Type: "EC", Operations: []string{"sign"}, Enabled: true, Private: private,
	}}}
	seed := func(change func(*backup)) {
		b := backup{Name: good.Name, Versions: append([]backupVersion{}, good.Versions...)}
		change(&b)
		text, err := json.Marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		_, _, err = parseBackup(text)
		if (err == nil) != (b.Name == "k" && len(b.Versions) == 1 && b.Versions[0].Type == "EC" && len(b.Versions[0].Private) > 3) {
			f.Errorf("%s: %v", text, err)
		}
		f.Add(text)
	}
	seed(func(*backup) {})
	seed(func(b *backup) { b.Name = "k.1" })
	seed(func(b *backup) { b.Versions = nil })
	seed(func(b *backup) { b.Versions = append(b.Versions, b.Versions[0]) })
	seed(func(b *backup) { b.Versions[0].Type = "RSA" })
	seed(func(b *backup) { b.Versions[0].Private = []byte{1, 2, 3} })
	f.Fuzz(func(t *testing.T, text []byte) {
		b, versions, err := parseBackup(text)
		if err == nil && (!keyName().MatchString(b.Name) || len(versions) != len(b.Versions) || len(versions) == 0) {
			t.Fatalf("took %q", text)
		}
	})
}

package envelope

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/fail"
)

func TestSealedTextOpensInItsEncryptionContext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ec := EncryptionContext{
			Tenant:     rapid.Int64().Draw(t, "tenant"),
			Parent:     rapid.Int64().Draw(t, "parent"),
			Generation: rapid.Uint32().Draw(t, "generation"),
			Child:      rapid.Int64().Draw(t, "child"),
			Class:      Class(rapid.Uint8().Draw(t, "class")),
			Version:    rapid.Uint64().Draw(t, "version"),
			Count:      rapid.Uint32().Draw(t, "count"),
		}
		purpose := Purpose(rapid.Uint8().Draw(t, "purpose"))
		plaintext := rapid.SliceOf(rapid.Byte()).Draw(t, "plaintext")
		key := NewKey()
		sealed := Seal(key, purpose, ec, plaintext)
		if len(sealed) != len(plaintext)+overhead {
			t.Fatalf("%d bytes were sealed to %d", len(plaintext), len(sealed))
		}
		opened, err := Open(key, purpose, ec, sealed)
		if err != nil || !bytes.Equal(opened, plaintext) {
			t.Fatalf("opened %x, %v", opened, err)
		}
	})
}

func TestTwoSealsOfTheSameTextDiffer(t *testing.T) {
	key := NewKey()
	if bytes.Equal(Seal(key, PurposeName, testContext, []byte("a")), Seal(key, PurposeName, testContext, []byte("a"))) {
		t.Error("two seals are the same bytes")
	}
}

func TestASealOpensInNoOtherEncryptionContext(t *testing.T) {
	key := testKey("parent")
	sealed := Seal(key, PurposePolicyKey, testContext, []byte("wrapped"))
	for name, ec := range alterations(testContext) {
		_, err := Open(key, PurposePolicyKey, ec, sealed)
		if err == nil {
			t.Errorf("%s: it opened", name)
			continue
		}
		wantDamaged(t, err, "open policy key", ec.String())
	}
	for purpose := range Purpose(16) {
		if purpose == PurposePolicyKey {
			continue
		}
		_, err := Open(key, purpose, testContext, sealed)
		wantDamaged(t, err, "open "+purpose.String())
	}
	_, err := Open(NewKey(), PurposePolicyKey, testContext, sealed)
	wantDamaged(t, err, "policy key", testContext.String())
}

func TestAnAlteredSealIsRefused(t *testing.T) {
	key := testKey("parent")
	sealed := Seal(key, PurposeMetadata, testContext, []byte("subject"))
	for i := range sealed {
		for bit := range 8 {
			altered := bytes.Clone(sealed)
			altered[i] ^= 1 << bit
			_, err := Open(key, PurposeMetadata, testContext, altered)
			wantDamaged(t, err, "open metadata", "child 44")
		}
		_, err := Open(key, PurposeMetadata, testContext, sealed[:i])
		wantDamaged(t, err, "open metadata", "child 44")
	}
	_, err := Open(key, PurposeMetadata, testContext, append(bytes.Clone(sealed), 0))
	wantDamaged(t, err)
}

func TestErrorsNamePurposeAndEncryptionContext(t *testing.T) {
	_, err := Open(NewKey(), PurposePage, testContext, make([]byte, 100))
	want := "open key page of child 44 of tenant 11 under parent 22 generation 3, version 55, 2 slots of class active: format 0 is unknown"
	if err == nil || err.Error() != want {
		t.Errorf("error is %v\nwant     %s", err, want)
	}
	if fail.CodeOf(err) != api.Damaged {
		t.Errorf("its code is %v", fail.CodeOf(err))
	}
	plain := EncryptionContext{Tenant: 1, Child: 2}
	if strings.Contains(plain.String(), "class") {
		t.Errorf("a ec that is no page's names a class: %v", plain)
	}
}

// The names of the classes are columns of the ledger; the numbers are in stored data.
func TestClassesAndPurposesKeepTheirNamesAndNumbers(t *testing.T) {
	want := []string{"class 0", "active", "inactive", "disconnected", "disabled", "sites", "workloads", "backups", "blobs", "directories", "class 10"}
	for i, name := range want {
		if got := Class(i).String(); got != name {
			t.Errorf("class %d is %q, want %q", i, got, name)
		}
	}
	for i, name := range []string{"purpose 0", "key page", "policy key", "metadata", "name", "secret", "purpose 6"} {
		if got := fmt.Sprint(Purpose(i)); got != name {
			t.Errorf("purpose %d is %q, want %q", i, got, name)
		}
	}
}

// FuzzOpen: no input makes Open panic, and Open returns only plaintext that was sealed.
func FuzzOpen(f *testing.F) {
	key, plaintext := testKey("fuzz"), []byte("plaintext")
	sealed := Seal(key, PurposeMetadata, testContext, plaintext)
	f.Add(sealed)
	f.Add(sealed[:len(sealed)-1])
	f.Add([]byte{})
	f.Add([]byte{sealFormat})
	f.Add(make([]byte, overhead))
	f.Fuzz(func(t *testing.T, b []byte) {
		opened, err := Open(key, PurposeMetadata, testContext, b)
		if err == nil && !bytes.Equal(opened, plaintext) {
			t.Errorf("%x opened to %x", b, opened)
		}
		if err != nil {
			wantDamaged(t, err)
		}
	})
}

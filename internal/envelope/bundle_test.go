package envelope

import (
	"bytes"
	"testing"

	"github.com/google/uuid"
)

var testBinding = Binding{
	Tenant:     uuid.MustParse("6a1f0000-1111-4222-8333-444444444401"),
	Policy:     uuid.MustParse("6a1f0000-1111-4222-8333-444444444402"),
	PolicyKey:  77,
	Generation: 5,
}

func TestUnbundleReturnsTheKey(t *testing.T) {
	key := NewKey()
	bundle := Bundle(key, testBinding)
	if len(bundle) != 64 {
		t.Fatalf("a bundle of %d bytes", len(bundle))
	}
	got, err := Unbundle(bundle, testBinding)
	if err != nil || !got.Equal(key) {
		t.Fatalf("unbundled %v", err)
	}
	clear(bundle)
	if !got.Equal(key) {
		t.Error("clearing the bundle changed the key")
	}
}

func TestABundleOfAnotherTenantPolicyOrGenerationIsRefused(t *testing.T) {
	bundle := Bundle(NewKey(), testBinding)
	for name, binding := range alterations(testBinding) {
		if _, err := Unbundle(bundle, binding); err == nil {
			t.Errorf("%s: unbundled", name)
		} else {
			wantDamaged(t, err, binding.Policy.String(), "another tenant, policy, policy key or generation")
		}
	}
}

func TestMalformedBundlesAreRefused(t *testing.T) {
	bundle := Bundle(NewKey(), testBinding)
	for _, b := range [][]byte{nil, bundle[:32], bundle[:63], append(bytes.Clone(bundle), 0)} {
		_, err := Unbundle(b, testBinding)
		wantDamaged(t, err, "unwrap policy key 77 generation 5", testBinding.Policy.String())
	}
	clear(bundle[:KeySize])
	_, err := Unbundle(bundle, testBinding)
	wantDamaged(t, err, "zeros", testBinding.Policy.String())
}

func FuzzUnbundle(f *testing.F) {
	key := testKey("policy")
	f.Add(Bundle(key, testBinding))
	f.Add(Bundle(key, Binding{}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := Unbundle(b, testBinding)
		if err != nil {
			wantDamaged(t, err)
			return
		}
		if again := Bundle(key, testBinding); !bytes.Equal(again, b) {
			t.Errorf("%x unbundles and bundles to %x", b, again)
		}
	})
}

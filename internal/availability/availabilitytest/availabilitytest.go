// Package availabilitytest is the test suite for every backend of the store of
// availability keys. Start reading at Run.
package availabilitytest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/availability"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

const tenant = 5

// backend is a store under test.
type backend struct {
	testing.TB
	*availability.Store
}

// Run tests one backend. open must open the same store each time.
func Run(t *testing.T, open func(t testing.TB) *availability.Store) {
	for _, test := range []struct {
		name string
		run  func(backend)
	}{
		{"a wrap can be opened, also after the store was opened again", func(w backend) {
			id := w.create()
			wrapped, bundle := w.wrap(id, 1)
			w.opens(id, 1, wrapped, bundle)
			backend{w.TB, open(t)}.opens(id, 1, wrapped, bundle)
		}},
		{"another key or version opens nothing", func(w backend) {
			id, other := w.create(), w.create()
			w.add(id, 2)
			wrapped, _ := w.wrap(id, 1)
			w.refuses(id, 2, wrapped, api.Damaged, api.VaultDenied)
			w.refuses(other, 1, wrapped, api.Damaged, api.VaultDenied)
		}},
		{"an altered wrap is damaged", func(w backend) {
			id := w.create()
			wrapped, _ := w.wrap(id, 1)
			wrapped[len(wrapped)-1] ^= 1
			w.refuses(id, 1, wrapped, api.Damaged)
			w.refuses(id, 1, wrapped[:1], api.Damaged)
			w.refuses(id, 1, nil, api.Damaged)
		}},
		{"a version that is there stays as it is", func(w backend) {
			id := w.create()
			wrapped, bundle := w.wrap(id, 1)
			w.add(id, 1)
			w.opens(id, 1, wrapped, bundle)
		}},
		{"a version that many add at once is one that all can use", func(w backend) {
			id := w.create()
			type made struct{ wrapped, bundle []byte }
			all := make([]made, 4)
			var group sync.WaitGroup
			for i := range all {
				group.Go(func() {
					if err := w.Add(context.Background(), tenant, id, 2); err != nil {
						w.Error(err)
						return
					}
					all[i].wrapped, all[i].bundle = w.wrap(id, 2)
				})
			}
			group.Wait()
			for _, m := range all {
				w.opens(id, 2, m.wrapped, m.bundle)
			}
		}},
		{"only the destroyed version is gone", func(w backend) {
			id := w.create()
			w.add(id, 2)
			first, _ := w.wrap(id, 1)
			second, bundle := w.wrap(id, 2)
			for range 2 {
				w.must(w.DestroyVersion(context.Background(), id, 1))
				w.refuses(id, 1, first, api.VaultDenied)
				w.opens(id, 2, second, bundle)
			}
		}},
		{"a destroyed key is gone in all its versions", func(w backend) {
			id, other := w.create(), w.create()
			w.add(id, 2)
			w.add(id, 3)
			w.must(w.DestroyVersion(context.Background(), id, 1))
			wrapped, _ := w.wrap(id, 3)
			kept, bundle := w.wrap(other, 1)
			for range 2 {
				w.must(w.Destroy(context.Background(), id))
				w.refuses(id, 3, wrapped, api.VaultDenied)
				if _, err := w.Wrap(context.Background(), id, 3, encryptionContext(), bundle); !fail.Is(err, api.VaultDenied) {
					w.Errorf("wrapped: %v", err)
				}
			}
			w.opens(other, 1, kept, bundle)
		}},
		{"what never was opens nothing", func(w backend) {
			id := store.NewID()
			known, _ := w.wrap(w.create(), 1)
			w.refuses(id, 1, known, api.NotFound, api.VaultDenied)
			if _, err := w.Wrap(context.Background(), id, 1, encryptionContext(), make([]byte, envelope.BundleSize)); !fail.Is(err, api.NotFound) && !fail.Is(err, api.VaultDenied) {
				w.Errorf("wrapped: %v", err)
			}
		}},
		{"a cancelled call does nothing", func(w backend) {
			id := w.create()
			wrapped, bundle := w.wrap(id, 1)
			gone, cancel := context.WithCancel(context.Background())
			cancel()
			_, _, created := w.Create(gone, tenant)
			_, opened := w.Open(gone, id, 1, encryptionContext(), wrapped)
			for act, err := range map[string]error{"create": created, "open": opened, "add": w.Add(gone, tenant, id, 2),
				"destroy": w.Destroy(gone, id), "destroy a version": w.DestroyVersion(gone, id, 1)} {
				if !errors.Is(err, context.Canceled) {
					w.Errorf("%s: %v", act, err)
				}
			}
			w.opens(id, 1, wrapped, bundle)
		}},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(backend{t, open(t)}) })
	}
}

func encryptionContext() envelope.EncryptionContext {
	return envelope.EncryptionContext{Tenant: tenant, Child: 9, Count: 1}
}

func (w backend) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w backend) create() int64 {
	w.Helper()
	id, version, err := w.Create(context.Background(), tenant)
	w.must(err)
	if version != 1 {
		w.Fatalf("the first version is %d", version)
	}
	return id
}

func (w backend) add(id int64, version uint32) {
	w.Helper()
	w.must(w.Add(context.Background(), tenant, id, version))
}

// wrap wraps a new bundle; it may be called from any goroutine.
func (w backend) wrap(id int64, version uint32) (wrapped, bundle []byte) {
	w.Helper()
	key := envelope.NewKey()
	bundle = envelope.Bundle(key, envelope.Binding{Tenant: uuid.New(), Policy: uuid.New(), PolicyKey: 9, Generation: 1})
	wrapped, err := w.Wrap(context.Background(), id, version, encryptionContext(), bundle)
	if err != nil {
		w.Errorf("wrap: %v", err)
	}
	if bytes.Contains(wrapped, bundle[:envelope.KeySize]) {
		w.Error("the wrap shows what it holds")
	}
	return wrapped, bundle
}

func (w backend) opens(id int64, version uint32, wrapped, bundle []byte) {
	w.Helper()
	got, err := w.Open(context.Background(), id, version, encryptionContext(), wrapped)
	if err != nil || !bytes.Equal(got, bundle) {
		w.Errorf("opened %d bytes, %v", len(got), err)
	}
}

func (w backend) refuses(id int64, version uint32, wrapped []byte, codes ...api.Code) {
	w.Helper()
	got, err := w.Open(context.Background(), id, version, encryptionContext(), wrapped)
	if got != nil || err == nil || !slices.Contains(codes, fail.CodeOf(err)) {
		w.Errorf("opened %d bytes, %v (%s); want %s", len(got), err, fail.CodeOf(err), codes)
	}
}

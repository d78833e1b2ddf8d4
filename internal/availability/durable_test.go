package availability_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/availability"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/files"
	"keyroll/internal/files/filestest"
)

const durableFolder = "/srv/keyroll/availability"

// version is one version of a key with its wrap.
type version struct {
	id        int64
	number    uint32
	wrap      []byte
	destroyed bool // acknowledged
	ending    bool // its destruction began
	key       []byte
}

func (v *version) encryptionContext() envelope.EncryptionContext {
	return envelope.EncryptionContext{Tenant: 5, Child: 9}
}

// kept is the expected content of a store; an entry is added when its version was
// acknowledged. A killed process may have left half with a mark that is not durable.
type kept struct{ first, other, half, next, last *version }

// wrapWith wraps with a version that was acknowledged.
func wrapWith(s *availability.Store, id int64, number uint32) *version {
	v := &version{id: id, number: number}
	v.wrap, _ = s.Wrap(context.Background(), id, number, v.encryptionContext(), secret)
	return v
}

func create(s *availability.Store) *version {
	id, number, err := s.Create(context.Background(), 5)
	if err != nil {
		return nil
	}
	return wrapWith(s, id, number)
}

// add makes version 2 of the other key.
func (k *kept) add(s *availability.Store) error {
	err := s.Add(context.Background(), 5, k.other.id, 2)
	if err == nil && k.next == nil {
		k.next = wrapWith(s, k.other.id, 2)
	}
	return err
}

func (v *version) note(err error) error {
	v.destroyed = v.destroyed || err == nil
	return err
}

// destroy destroys two keys, and the first version of the other one.
func (k *kept) destroy(s *availability.Store) (err error) {
	if err = k.half.note(s.Destroy(context.Background(), k.half.id)); err != nil {
		return err
	}
	k.other.ending = true
	if err = k.other.note(s.DestroyVersion(context.Background(), k.other.id, 1)); err == nil {
		k.first.ending = true
		err = k.first.note(s.Destroy(context.Background(), k.first.id))
	}
	return err
}

func (k *kept) check(t testing.TB, f files.FS, nth int) {
	ctx := context.Background()
	s, err := availability.OpenOn(f, durableFolder)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]*version{"the first key": k.first, "the other key": k.other, "the half destroyed key": k.half, "its next version": k.next, "the last key": k.last} {
		if v == nil {
			continue
		}
		if v.wrap == nil { // its store was stopped before it wrapped anything
			v.wrap, _ = s.Wrap(ctx, v.id, v.number, v.encryptionContext(), secret)
		}
		opened, err := s.Open(ctx, v.id, v.number, v.encryptionContext(), v.wrap)
		switch {
		case !v.destroyed && err == nil && bytes.Equal(opened, secret):
		case (v.destroyed || v.ending) && fail.Is(err, api.VaultDenied):
		default:
			t.Errorf("%s, destroyed: %v, ending: %v: %q, %v", name, v.destroyed, v.ending, opened, err)
		}
	}
	for name, body := range f.(*filestest.FS).Files() {
		if strings.HasSuffix(name, ".key") && len(body) != 85 {
			t.Errorf("%s is torn: %d bytes", name, len(body))
		}
		for _, v := range []*version{k.first, k.other, k.half} {
			if v.destroyed && bytes.Contains(body, v.key) {
				t.Errorf("%s holds a key that was destroyed", name)
			}
		}
	}
	if err := k.add(s); err != nil {
		t.Errorf("add once more: %v", err)
	}
	if nth == 0 {
		return
	}
	if err := k.destroy(s); err != nil {
		t.Errorf("destroy once more: %v", err)
	}
	if k.last == nil {
		if k.last = create(s); k.last == nil {
			t.Error("no key can be made any more")
		}
	}
}

func TestAvailabilityKeysSurviveAPowerCutAtEveryFileOperation(t *testing.T) {
	filestest.Run(t, filestest.Scenario[kept]{
		Begin: func(t testing.TB, f files.FS, k *kept) {
			s, err := availability.OpenOn(f, durableFolder)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range []**version{&k.first, &k.other, &k.half} {
				if *v = create(s); *v == nil {
					t.Fatal("no key can be made")
				}
				(*v).key = f.(*filestest.FS).Files()[fmt.Sprintf("%s/%d-1.key", durableFolder, (*v).id)][21:53]
			}
			k.half.ending = true
			mark, err := f.Create(fmt.Sprintf("%s/%d.destroyed", durableFolder, k.half.id))
			if err != nil {
				t.Fatal(err)
			}
			_ = mark.Close()
		},
		Act: func(f files.FS, k *kept) {
			s, err := availability.OpenOn(f, durableFolder)
			if err != nil {
				return
			}
			if k.destroy(s) == nil {
				k.last = create(s)
			}
			_ = k.add(s)
		},
		Check: func(t testing.TB, f files.FS, k *kept, nth int) { k.check(t, f, nth) },
	})
}

// A process that was killed after it had made a key may have left the file under
// another name, too; an earlier keyroll's other names did not say of which key.
func TestNoDraftContainsADestroyedKey(t *testing.T) {
	dir := folder(t)
	s := open(t, dir)
	ec, _ := wrapSecret(t, s)
	name := fmt.Sprintf("%s/%d-1.key", dir, ec.Parent)
	for _, draft := range []string{name + ".new-A", dir + "/new-1"} {
		if err := files.OS.Link(name, draft); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir)
	if err := s.Destroy(t.Context(), ec.Parent); err != nil {
		t.Fatal(err)
	}
	left, err := files.OS.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != fmt.Sprintf("%d.destroyed", ec.Parent) {
		t.Errorf("left %v, %v", left, err)
	}
}

package availability_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/availability"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
)

var secret = bytes.Repeat([]byte("policy key "), 6)

func open(t *testing.T, dir string) *availability.Store {
	t.Helper()
	s, err := availability.Open(t.Context(), "file://"+dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// folder returns a path for a store; t.TempDir itself is readable by other users.
func folder(t *testing.T) string { return filepath.Join(t.TempDir(), "availability") }

// wrapSecret makes a key for tenant 5 and wraps secret for policy key 9 with it.
func wrapSecret(t *testing.T, s *availability.Store) (envelope.EncryptionContext, []byte) {
	t.Helper()
	id, version, err := s.Create(t.Context(), 5)
	if err != nil {
		t.Fatal(err)
	}
	ec := envelope.EncryptionContext{Tenant: 5, Parent: id, Generation: version, Child: 9}
	w, err := s.Wrap(t.Context(), ec.Parent, ec.Generation, ec, secret)
	if err != nil {
		t.Fatal(err)
	}
	return ec, w
}

func TestKeysSurviveReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b", "availability")
	ec, w := wrapSecret(t, open(t, dir))
	got, err := open(t, dir).Open(t.Context(), ec.Parent, ec.Generation, ec, w)
	if err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestEachCreateMakesADifferentKey(t *testing.T) {
	s := open(t, folder(t))
	ec, w := wrapSecret(t, s)
	other, _ := wrapSecret(t, s)
	if ec.Parent == other.Parent {
		t.Fatal("one id for two keys")
	}
	if _, err := s.Open(t.Context(), other.Parent, other.Generation, other, w); !fail.Is(err, api.Damaged) {
		t.Errorf("opened by another key: %v", err)
	}
}

func TestOnlyTheOwnerMayReadTheFiles(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "made", "availability")
	s := open(t, dir)
	ec, _ := wrapSecret(t, s)
	if err := s.Destroy(t.Context(), ec.Parent); err != nil {
		t.Fatal(err)
	}
	wrapSecret(t, s)
	seen := 0
	err := filepath.WalkDir(filepath.Join(parent, "made"), func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(0o600)
		if entry.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		seen++
		return nil
	})
	if err != nil || seen != 4 { // two folders, a key, a mark
		t.Errorf("%d entries, %v", seen, err)
	}
}

func TestAFolderThatOtherUsersCanReadIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	_, err := availability.Open(t.Context(), "file://"+dir)
	if _, _, hint := fail.Public(err); !fail.Is(err, api.InvalidArgument) || hint != "chmod 700 "+dir {
		t.Errorf("got %v, hint %q", err, hint)
	}
}

func TestOpenRefusesAFolderThatIsNotAStore(t *testing.T) {
	for _, url := range []string{"", "availability", "file://relative/x", "file:relative", "/abs", "http://contoso.vault.azure.net", "https://", "https://contoso.vault.azure.net/keys/k", "https://me:secret@contoso.vault.azure.net", "file:///x?y", "file://%zz"} {
		if _, err := availability.Open(t.Context(), url); !fail.Is(err, api.InvalidArgument) {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestAWrapInAnotherEncryptionContextIsRefused(t *testing.T) {
	s := open(t, folder(t))
	ec, w := wrapSecret(t, s)
	other, _ := wrapSecret(t, s)
	for name, test := range map[string]struct {
		move func(*envelope.EncryptionContext)
		want api.Code
	}{
		"another policy key": {func(p *envelope.EncryptionContext) { p.Child++ }, api.Damaged},
		"another key":        {func(p *envelope.EncryptionContext) { p.Parent = other.Parent }, api.Damaged},
		"another version":    {func(p *envelope.EncryptionContext) { p.Generation++ }, api.NotFound},
		"another tenant":     {func(p *envelope.EncryptionContext) { p.Tenant++ }, api.NotFound},
		"another class":      {func(p *envelope.EncryptionContext) { p.Class = envelope.ClassSite }, api.Damaged},
	} {
		moved := ec
		test.move(&moved)
		if _, err := s.Open(t.Context(), moved.Parent, moved.Generation, moved, w); !fail.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w[len(w)-1] ^= 1
	if _, err := s.Open(t.Context(), ec.Parent, ec.Generation, ec, w); !fail.Is(err, api.Damaged) {
		t.Errorf("altered: %v", err)
	}
}

func TestADestroyedKeyStaysDestroyed(t *testing.T) {
	dir := folder(t)
	s := open(t, dir)
	ec, w := wrapSecret(t, s)
	kept, keptWrap := wrapSecret(t, s)
	file := filepath.Join(dir, fmt.Sprintf("%d-1.key", ec.Parent))
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Destroy(t.Context(), ec.Parent); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the file is still there: %v", err)
		}
		for _, s := range []*availability.Store{s, open(t, dir)} {
			_, opened := s.Open(t.Context(), ec.Parent, ec.Generation, ec, w)
			_, wrapped := s.Wrap(t.Context(), ec.Parent, ec.Generation, ec, secret)
			for _, err := range []error{opened, wrapped} {
				if !fail.Is(err, api.VaultDenied) || err.Error() != fmt.Sprintf("availability key %d was destroyed", ec.Parent) {
					t.Errorf("got %v", err)
				}
			}
		}
		// An administrator may restore the file, or a crash may have left it there.
		if err := os.WriteFile(file, body, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(t.Context(), ec.Parent, ec.Generation, ec, w); !fail.Is(err, api.VaultDenied) {
			t.Errorf("with its file put back: %v", err)
		}
	}
	if got, err := s.Open(t.Context(), kept.Parent, kept.Generation, kept, keptWrap); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("another key: %v", err)
	}
}

func TestADestroyedVersionStaysDestroyed(t *testing.T) {
	dir := folder(t)
	s := open(t, dir)
	ec, w := wrapSecret(t, s)
	file := filepath.Join(dir, fmt.Sprintf("%d-1.key", ec.Parent))
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DestroyVersion(t.Context(), ec.Parent, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	_, opened := s.Open(t.Context(), ec.Parent, 1, ec, w)
	for act, err := range map[string]error{"open": opened, "add": s.Add(t.Context(), 5, ec.Parent, 1)} {
		if want := fmt.Sprintf("availability key %d version 1 was destroyed", ec.Parent); !fail.Is(err, api.VaultDenied) || err.Error() != want {
			t.Errorf("%s with its file put back: %v", act, err)
		}
	}
	if err := s.DestroyVersion(t.Context(), 77, 1); !fail.Is(err, api.NotFound) {
		t.Errorf("a version that never was: %v", err)
	}
}

func TestAMissingKeyIsNamed(t *testing.T) {
	s := open(t, folder(t))
	ec := envelope.EncryptionContext{Tenant: 5, Parent: 77, Generation: 3, Child: 9}
	_, opened := s.Open(t.Context(), ec.Parent, ec.Generation, ec, nil)
	_, wrapped := s.Wrap(t.Context(), ec.Parent, ec.Generation, ec, secret)
	for _, err := range []error{opened, wrapped} {
		if !fail.Is(err, api.NotFound) || !strings.HasPrefix(err.Error(), "availability key 77 version 3 is not in") {
			t.Errorf("got %v", err)
		}
	}
	if err := s.Destroy(t.Context(), 77); !fail.Is(err, api.NotFound) {
		t.Errorf("destroy: %v", err)
	}
}

func TestADamagedFileIsNamed(t *testing.T) {
	dir := folder(t)
	s := open(t, dir)
	ec, w := wrapSecret(t, s)
	name := fmt.Sprintf("%d-1.key", ec.Parent)
	file := filepath.Join(dir, name)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, body []byte) {
		if err := os.WriteFile(file, body, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Open(t.Context(), ec.Parent, ec.Generation, ec, w)
		if !fail.Is(err, api.Damaged) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		check(fmt.Sprintf("byte %d changed", i), bad)
	}
	for n := range len(good) {
		check(fmt.Sprintf("cut to %d", n), good[:n])
	}
	check("one byte more", append(bytes.Clone(good), 0))
	other, _ := wrapSecret(t, s)
	swapped, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d-1.key", other.Parent)))
	if err != nil {
		t.Fatal(err)
	}
	check("the file of another key", swapped)
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), ec.Parent, ec.Generation, ec, w); err != nil {
		t.Errorf("put back: %v", err)
	}
}

func TestFailedCreateLeavesNoFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "availability")
	s := open(t, dir)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if id, _, err := s.Create(t.Context(), 5); err == nil || id != 0 {
		t.Errorf("created %d in a folder that is gone", id)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	s = open(t, dir)
	if _, _, err := s.Create(cancelled, 5); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left %v", entries)
	}
}

// TestNoMethodReturnsAKey compares the package's methods with a list of those that were
// reviewed.
func TestNoMethodReturnsAKey(t *testing.T) {
	var methods []string
	of := reflect.TypeFor[*availability.Store]()
	for i := range of.NumMethod() {
		methods = append(methods, of.Method(i).Name)
	}
	if got := strings.Join(methods, " "); got != "Add Close Create Destroy DestroyVersion Open Wrap" {
		t.Errorf("methods %s", got)
	}
	dir := folder(t)
	s := open(t, dir)
	ec, w := wrapSecret(t, s)
	body, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d-1.key", ec.Parent)))
	if err != nil {
		t.Fatal(err)
	}
	key := body[21:53]
	if bytes.Contains(w, key) || strings.Contains(fmt.Sprintf("%v %+v %#v", s, s, s), fmt.Sprintf("%x", key)) {
		t.Error("a wrap or a printed store holds the key")
	}
}

package seal_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/seal"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func open(t testing.TB, path string) *seal.Seal {
	t.Helper()
	s, err := seal.Open(context.Background(), "file://"+path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealFileIsCreatedOnceAndReadableByItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seal")
	first := open(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 || info.Size() != 32 {
		t.Errorf("seal file has mode %o and %d bytes", info.Mode().Perm(), info.Size())
	}
	sealed := first.Seal("a", []byte("text"))
	second := open(t, path)
	if first.ID() != second.ID() {
		t.Error("the same file gives another id")
	}
	if got, err := second.Open("a", sealed); err != nil || string(got) != "text" {
		t.Errorf("open: %q, %v", got, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("folder holds %v, %v", entries, err)
	}
}

func TestConcurrentFirstStartsAgreeOnOneSeal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seal")
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			if s, err := seal.Open(context.Background(), "file://"+path); err == nil {
				ids[i] = s.ID()
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("ids differ: %q", ids)
		}
	}
}

func TestInvalidSealIsRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return "file://" + path
	}
	for _, c := range []struct{ name, url, want string }{
		{"no url", "::", "is not a URL"},
		{"no scheme", "/tmp/seal", "not of the form"},
		{"relative", "file:seal", "not of the form"},
		{"host", "file://elsewhere/seal", "not of the form"},
		{"other kind", "https://vault/keys/seal", "not of the form"},
		{"short", write("short", 31, 0o600), "exactly 32 bytes"},
		{"long", write("long", 33, 0o600), "exactly 32 bytes"},
		{"empty", write("empty", 0, 0o600), "exactly 32 bytes"},
		{"for all", write("all", 32, 0o604), "mode 0604"},
		{"group writes", write("group", 32, 0o660), "mode 0660"},
		{"folder", "file://" + dir, "not a regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := seal.Open(context.Background(), c.url)
			if !fail.Is(err, api.InvalidArgument) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestSealedTextOpensOnlyUnderItsLabelAndSealUnchanged(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, filepath.Join(dir, "a")), open(t, filepath.Join(dir, "b"))
	sealed := s.Seal("label", []byte("secret"))
	refused := func(what string, s *seal.Seal, label string, sealed []byte) {
		t.Helper()
		if got, err := s.Open(label, sealed); !fail.Is(err, api.Damaged) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	refused("another label", s, "label2", sealed)
	refused("another seal", other, "label", sealed)
	refused("nothing", s, "label", nil)
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		refused(fmt.Sprintf("byte %d changed", i), s, "label", changed)
		refused(fmt.Sprintf("cut at %d", i), s, "label", sealed[:i])
	}
	if bytes.Equal(sealed, s.Seal("label", []byte("secret"))) {
		t.Error("sealed twice alike")
	}
}

func TestSealNeverPrintsItsKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seal")
	key := bytes.Repeat([]byte{0xab}, 32)
	if err := os.WriteFile(path, key, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %s %x %d", s, s, s, s, s, s)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "seal", s)
	if err := json.NewEncoder(&out).Encode(s); err != nil {
		t.Fatal(err)
	}
	for _, leak := range []string{hex.EncodeToString(key[:4]), "171", string(key[:4])} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("printed %q", out.String())
		}
	}
}

func TestDatabaseOfAnotherSealIsRefused(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, dir := context.Background(), t.TempDir()
		s, other := open(t, filepath.Join(dir, "a")), open(t, filepath.Join(dir, "b"))
		check := func(s *seal.Seal) error {
			return db.InTx(ctx, func(tx *store.Tx) error { return s.Check(ctx, tx) })
		}
		for range 2 {
			if err := check(s); err != nil {
				t.Fatal(err)
			}
		}
		err := check(other)
		if !fail.Is(err, api.WrongSeal) || !strings.Contains(err.Error(), s.ID()) || !strings.Contains(err.Error(), other.ID()) {
			t.Errorf("another seal: %v", err)
		}
		if err := check(s); err != nil {
			t.Errorf("the right seal after the wrong one: %v", err)
		}
	})
}

func TestSecretIsCreatedOnceAndStoredSealed(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		s := open(t, filepath.Join(t.TempDir(), "seal"))
		db.SetForTests(store.ForTests{}) // what runs in a transaction is counted
		made := 0
		secret := func(name string) (got string) {
			err := db.InTx(ctx, func(tx *store.Tx) error {
				b, err := seal.Secret(ctx, tx, s, name, func() ([]byte, error) {
					made++
					return fmt.Appendf(nil, "secret number %d", made), nil
				})
				got = string(b)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		first := secret("a")
		if again := secret("a"); again != first || made != 1 {
			t.Errorf("again: %q, made %d times", again, made)
		}
		if other := secret("b"); other == first {
			t.Error("two names have one secret")
		}
		err := db.InTx(ctx, func(tx *store.Tx) error {
			var sealed []byte
			if err := tx.QueryRow(ctx, `SELECT sealed FROM secret WHERE name = ?1`, "a").Scan(&sealed); err != nil {
				return err
			}
			if bytes.Contains(sealed, []byte("secret number")) {
				t.Error("the secret is in plaintext")
			}
			_, err := tx.Exec(ctx, `UPDATE secret SET sealed = ?1 WHERE name = ?2`, sealed, "b")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		err = db.ViewOnce(ctx, func(tx *store.Tx) error {
			_, err := seal.Secret(ctx, tx, s, "b", nil)
			return err
		})
		if !fail.Is(err, api.Damaged) {
			t.Errorf("a secret put under another name: %v", err)
		}
	})
}

func FuzzOpenRejectsForeignBytes(f *testing.F) {
	s := open(f, filepath.Join(f.TempDir(), "seal"))
	f.Add([]byte(nil))
	f.Add([]byte{1})
	f.Add(append([]byte{1}, make([]byte, 28)...))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if _, err := s.Open("label", sealed); !fail.Is(err, api.Damaged) {
			t.Fatalf("opened %x: %v", sealed, err)
		}
	})
}

package blob_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/blob/blobtest"
	"keyroll/internal/fail"
)

func open(t *testing.T, path string) blob.Store {
	t.Helper()
	s, err := blob.Open(t.Context(), "file://"+path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFolderStoreConforms(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store { return open(t, filepath.Join(t.TempDir(), "a", "blobs")) })
}

func TestFolderIsReadableByItsOwnerOnly(t *testing.T) {
	root := filepath.Join(t.TempDir(), "blobs")
	s := open(t, root)
	if _, err := s.PutIfAbsent(t.Context(), "aa/bb/cc", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	b := s.Batch()
	defer b.Discard()
	if _, err := b.Put(t.Context(), "aa/dd", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if want := fs.FileMode(0o600); !entry.IsDir() {
			files++
			if info.Mode().Perm() != want {
				t.Errorf("%s: mode %v", path, info.Mode())
			}
		} else if info.Mode().Perm() != 0o700 {
			t.Errorf("%s: mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || files != 4 { // a blob, one that is being put, the lock and the mark
		t.Errorf("%d files, %v", files, err)
	}
}

// unfinished counts the files under tmp.
func unfinished(t *testing.T, root string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "tmp", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(slices.DeleteFunc(files, func(path string) bool { return filepath.Base(path) == "lock" }))
}

// A process that dies during a put leaves files under tmp and no blob; the next
// process removes them, but not those of a process that lives.
func TestOpenRemovesTheDraftsOfACrash(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if _, err := s.PutIfAbsent(t.Context(), "aa/1", strings.NewReader("kept")); err != nil {
		t.Fatal(err)
	}
	batch := s.Batch()
	put := func(name string) {
		t.Helper()
		if _, err := batch.Put(t.Context(), name, strings.NewReader("half")); err != nil {
			t.Fatal(err)
		}
	}
	put("aa/2")
	again := open(t, root)
	put("aa/3")
	if err := batch.Commit(t.Context()); err != nil {
		t.Errorf("a process that lives was disturbed: %v", err)
	}
	batch = s.Batch()
	put("aa/4")
	if err := os.WriteFile(filepath.Join(root, "tmp", "of-an-earlier-keyroll"), nil, 0o600); err != nil || unfinished(t, root) != 1 {
		t.Fatalf("%d files before, %v", unfinished(t, root), err)
	}
	blob.ReleaseLock(s)
	open(t, root)
	if all, err := os.ReadDir(filepath.Join(root, "tmp")); err != nil || unfinished(t, root) != 0 || len(all) != 2 {
		t.Errorf("under tmp after: %v, %v", all, err)
	}
	var names []string
	err := again.List(t.Context(), "", func(name string, _ int64) error { names = append(names, name); return nil })
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"aa/1", "aa/2", "aa/3"}) {
		t.Errorf("blobs: %v, %v", names, err)
	}
}

func TestNoDraftStaysInTmp(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(filepath.Join(root, "tmp")); err != nil || len(left) != 0 {
			t.Errorf("under tmp when it is closed: %v, %v", left, err)
		}
	}()
	put := func(name string, r io.Reader) { _, _ = s.PutIfAbsent(t.Context(), name, r) }
	put("1", strings.NewReader("x"))
	put("1", strings.NewReader("taken"))
	put("2", io.MultiReader(strings.NewReader("x"), errReader{}))
	put("no name", strings.NewReader("x"))
	b := s.Batch()
	for _, name := range []string{"3", "4", "1"} {
		if _, err := b.Put(t.Context(), name, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(t.Context()); !fail.Is(err, api.AlreadyExists) {
		t.Fatal(err)
	}
	if n := unfinished(t, root); n != 0 {
		t.Errorf("%d files", n)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

func TestInvalidAddressesAreRefused(t *testing.T) {
	dir := t.TempDir()
	for _, address := range []string{"s3://", "s3:///x", "s3://bucket:1/x", "s3://bucket/x?secret=hush", "s3://key:hush@bucket/x", "s3://bucket?endpoint=ftp://x", "s3://bucket?endpoint=https://key:hush@x",
		"azblob://", "azblob://account", "azblob://account/?endpoint=x", "azblob://account:hush@account/c", "azblob://account/c?sig=hush", "azblob://account/c?endpoint=https://x?sig=hush",
		"", "file", "blobs", "file://blobs/x", "file:blobs", "file:///", "file://" + dir + "?x=1", "file://" + dir + "#x", "file://u:p@" + dir, "ftp://host/x", "http://%zz"} {
		if _, err := blob.Open(t.Context(), address); !fail.Is(err, api.InvalidArgument) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: %v", address, err)
		}
	}
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.Open(t.Context(), "file://"+path); !fail.Is(err, api.Unavailable) {
		t.Errorf("a file for a folder: %v", err)
	}
}

func BenchmarkPutSmall(b *testing.B) {
	s, err := blob.Open(b.Context(), "file://"+b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	body := bytes.Repeat([]byte("x"), 4096)
	n := 0
	for _, size := range []int{1, 64, 256, 512} {
		b.Run(fmt.Sprintf("batch-%d", size), func(b *testing.B) {
			for b.Loop() {
				batch := s.Batch()
				for range size {
					n++
					if _, err := batch.Put(b.Context(), fmt.Sprintf("aa/%x", n), bytes.NewReader(body)); err != nil {
						b.Fatal(err)
					}
				}
				if err := batch.Commit(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(size*b.N)/b.Elapsed().Seconds(), "blobs/s")
		})
	}
}

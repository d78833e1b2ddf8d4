package compact_test

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"

	"keyroll/internal/compact"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/items"
	"keyroll/internal/store/storetest"
)

// storedBytes returns the sum of the sizes of all files of the blob store.
func storedBytes(t *testing.T, w *fixture) (sum int64) {
	t.Helper()
	must(t, filepath.WalkDir(w.BlobDir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	}))
	return sum
}

// liveBytes returns how many sealed bytes the rows of blobs refer to.
func liveBytes(t *testing.T, w *fixture) (sum int64) {
	t.Helper()
	for _, b := range w.StoredBlobs(t) {
		sum += b.Len
	}
	return sum
}

// After nine of ten small items were replaced or removed, upkeep leaves at most twice the
// bytes that are in use, with the limits of production.
func TestAfterMostItemsWereDeletedTheStoreHasAtMostTwiceTheLiveBytes(t *testing.T) {
	const files = 400
	w := newFixture(t, storetest.One(t))
	w.Sizes = items.Sizes{} // those of production
	w.Reopen(t)
	production := compact.New(w.DB, w.Items, compact.DefaultLimits)
	upkeep := func() {
		w.MustCollect(t, 0)
		_, err := production.Run(t.Context())
		must(t, err)
	}
	want := map[string]string{}
	put := func(i, size int) {
		path := fmt.Sprint("file", i)
		want[path] = contenttest.RandomContent(i+size, size)
		w.MustPut(t, path, want[path])
	}
	for i := range files {
		put(i, 3000)
	}
	upkeep()
	upkeep()
	if n := len(w.BlobNames(t)); n > 10 {
		t.Fatalf("%d files are in %d objects", files, n)
	}
	before := storedBytes(t, w)
	for i := range files {
		if i%10 > 0 {
			put(i, 30) // the old content is dead
		}
	}
	upkeep() // moves what is left
	upkeep() // deletes the old objects
	stored, live := storedBytes(t, w), liveBytes(t, w)
	if stored > 2*live || live*2 > before {
		t.Errorf("the blob store has %d bytes, of which %d are in use; before it had %d", stored, live, before)
	}
	wantContent(t, w, "", want)
	w.WantExact(t)
}

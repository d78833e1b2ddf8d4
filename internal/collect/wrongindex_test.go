package collect_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/backup"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// tryCollect collects with grace 0. Without the comparison of the tables with their
// indexes, only the scan of the rows protects blobs that are in use.
func tryCollect(t testing.TB, w *fixture, compare bool) error {
	t.Helper()
	storetest.PassIDs()
	storetest.UseIndexes(t, w.DB, compare)
	c, err := w.Collect(context.Background(), 0, false)
	must(t, err)
	if err := c.Tenant(context.Background(), tenant, nil); err != nil {
		return err
	}
	return c.End(context.Background())
}

// Whatever entries the indexes that a collection reads have lost, no blob that a row
// references is deleted, and all content stays readable.
func TestACollectionWithAWrongIndexDeletesNoBlobInUse(t *testing.T) {
	files := func(w *fixture, t testing.TB, from, to int) {
		for i := from; i < to; i++ {
			w.MustPut(t, fmt.Sprint("file", i), contenttest.RandomContent(i, 10))
		}
	}
	for name, wreck := range map[string]func(t *testing.T, w *fixture){
		"an index that knows nothing": func(t *testing.T, w *fixture) {
			w.LoseIndexWrites(t, "blob_id", func() { files(w, t, 0, 6) })
		},
		"the newest three files after one lost write": func(t *testing.T, w *fixture) {
			files(w, t, 0, 3)
			w.LoseIndexWrites(t, "blob_id", func() { files(w, t, 3, 6) })
		},
		"a backup of files that were replaced": func(t *testing.T, w *fixture) {
			files(w, t, 0, 6)
			w.LoseIndexWrites(t, "blob_id", func() { w.MustBackup(t, w.Site) })
			files(w, t, 0, 6)
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, w *fixture) {
				wreck(t, w)
				before := w.BlobNames(t)
				for _, compare := range []bool{false, true} {
					err := tryCollect(t, w, compare)
					if _, detail, hint := fail.Public(err); !fail.Is(err, api.Damaged) || !strings.Contains(detail, "nothing is deleted") || hint == "" {
						t.Errorf("[%s] %v", fail.CodeOf(err), err)
					}
				}
				if after := w.BlobNames(t); !slices.Equal(after, before) {
					t.Errorf("%d blobs of %d are left", len(after), len(before))
				}
				for _, b := range append(w.AllBackups(t), backup.Backup{Container: w.Site}) {
					if got := w.FilesOf(t, b.Container); len(got) != 6 || got["file5"] != contenttest.RandomContent(5, 10) {
						t.Errorf("%d files are read", len(got))
					}
				}
				storetest.Reindex(t, w.DB, "blob")
				must(t, tryCollect(t, w, true))
				w.WantExact(t)
			})
		})
	}
}

// The blobs of a backup are in an object whose other blobs were dropped.
func TestACollectionWithAWrongIndexDeletesNoObjectInUse(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		mail := contenttest.Mbox(4)
		w.MustImport(t, mail)
		var copied backup.Backup
		w.LoseIndexWrites(t, "blob_id", func() { copied = w.MustBackup(t, w.Mail) })
		w.MustRenew(t, store.NewID(), w.Mail)
		before := w.BlobNames(t)
		for _, compare := range []bool{false, true} {
			wantCode(t, tryCollect(t, w, compare), api.Damaged)
		}
		if after := w.BlobNames(t); !slices.Equal(after, before) || len(after) != 2 {
			t.Errorf("%d objects of %d are left", len(after), len(before))
		}
		var got strings.Builder
		must(t, w.Export(t.Context(), copied.Container, &got))
		if got.String() != mail || w.MustExport(t) != mail {
			t.Error("the backup or the mailbox reads otherwise than before")
		}
		storetest.Reindex(t, w.DB, "blob")
		must(t, tryCollect(t, w, true))
		w.WantExact(t)
	})
}

// An index of zeros is damage, and its rows can still be read if another index finds
// them.
func TestACollectionOverAnIndexOfZerosDeletesNothing(t *testing.T) {
	w := newFixture(t, storetest.SQLite(t))
	for i := range 6 {
		w.MustPut(t, fmt.Sprint("file", i), contenttest.RandomContent(i, 10))
		w.MustPut(t, fmt.Sprint("file", i), contenttest.RandomContent(i, 10))
	}
	before := w.BlobNames(t)
	w.UseDatabase(t, storetest.ZeroIndex(t, w.DB, "blob_id"))
	for _, compare := range []bool{false, true} {
		wantCode(t, tryCollect(t, w, compare), api.Damaged)
	}
	if after := w.BlobNames(t); !slices.Equal(after, before) {
		t.Errorf("%d blobs of %d are left", len(after), len(before))
	}
	if got := w.FilesOf(t, w.Site); len(got) != 6 || got["file5"] != contenttest.RandomContent(5, 10) {
		t.Errorf("%d files are read", len(got))
	}
}

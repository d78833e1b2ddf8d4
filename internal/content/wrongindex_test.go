package content_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// on goes on with another database, as the next process.
func (w *world) on(t testing.TB, db *store.DB) {
	t.Helper()
	w.db, w.policies.db = db, db
	w.containers.Close()
	w.containers = container.New(db, w.policies, pageSlots, time.Now)
	t.Cleanup(w.containers.Close)
	w.reopen(t)
}

// lose does something while what is written to an index gets lost.
func (w *world) lose(t testing.TB, index string, during func()) {
	t.Helper()
	w.on(t, storetest.LoseWrites(t, w.db, index, func(db *store.DB) {
		w.on(t, db)
		during()
	}))
}

// tryCollect collects what is old enough at once. Without the comparison of the
// tables with their indexes the second look alone keeps what is in use.
func (w *world) tryCollect(t testing.TB, compare bool) error {
	t.Helper()
	for last := store.NewID(); store.IDFrom(time.Now()) <= last; { // within a millisecond
	}
	c, err := w.Collect(context.Background(), 0, false, nil)
	must(t, err)
	if !compare {
		content.TakeForSound(c)
	}
	if err := c.Tenant(context.Background(), tenant, nil); err != nil {
		return err
	}
	return c.End(context.Background())
}

// Whatever the index by which a collection decides first has lost, nothing that a
// row names is deleted, and all of it stays readable.
func TestACollectionBelievesNoWrongIndex(t *testing.T) {
	files := func(w *world, t testing.TB, from, to int) {
		for i := from; i < to; i++ {
			w.put(t, fmt.Sprint("file", i), body(i, 10))
		}
	}
	for name, wreck := range map[string]func(t *testing.T, w *world){
		"an index that knows nothing": func(t *testing.T, w *world) {
			w.lose(t, "blob_id", func() { files(w, t, 0, 6) })
		},
		"the newest three files after one lost write": func(t *testing.T, w *world) {
			files(w, t, 0, 3)
			w.lose(t, "blob_id", func() { files(w, t, 3, 6) })
		},
		"a backup of files that were replaced": func(t *testing.T, w *world) {
			files(w, t, 0, 6)
			w.lose(t, "blob_id", func() { w.backup(t, w.site) })
			files(w, t, 0, 6)
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, w *world) {
				wreck(t, w)
				before := w.blobNames(t)
				for _, compare := range []bool{false, true} {
					err := w.tryCollect(t, compare)
					if _, detail, hint := fail.Public(err); !fail.Is(err, api.Damaged) || !strings.Contains(detail, "nothing is deleted") || hint == "" {
						t.Errorf("[%s] %v", fail.CodeOf(err), err)
					}
				}
				if after := w.blobNames(t); !slices.Equal(after, before) {
					t.Errorf("%d blobs of %d are left", len(after), len(before))
				}
				for _, b := range append(w.all(t), content.Backup{Container: w.site}) {
					if got := w.filesOf(t, b.Container); len(got) != 6 || got["file5"] != body(5, 10) {
						t.Errorf("%d files are read", len(got))
					}
				}
				must(t, w.db.InTx(t.Context(), func(tx *store.Tx) error {
					_, err := tx.Exec(t.Context(), map[string]string{"sqlite": `REINDEX blob`, "postgres": `REINDEX TABLE blob`}[w.db.Dialect().Name])
					return err
				}))
				must(t, w.tryCollect(t, true))
				w.exact(t)
			})
		})
	}
}

// An index of zeros is damage, and what it leads to is still read where another
// way leads there.
func TestACollectionOverAnIndexOfZerosDeletesNothing(t *testing.T) {
	w := newWorld(t, storetest.SQLite(t))
	for i := range 6 {
		w.put(t, fmt.Sprint("file", i), body(i, 10))
		w.put(t, fmt.Sprint("file", i), body(i, 10))
	}
	before := w.blobNames(t)
	w.on(t, storetest.ZeroIndex(t, w.db, "blob_id"))
	for _, compare := range []bool{false, true} {
		wantCode(t, w.tryCollect(t, compare), api.Damaged)
	}
	if after := w.blobNames(t); !slices.Equal(after, before) {
		t.Errorf("%d blobs of %d are left", len(after), len(before))
	}
	if got := w.filesOf(t, w.site); len(got) != 6 || got["file5"] != body(5, 10) {
		t.Errorf("%d files are read", len(got))
	}
}

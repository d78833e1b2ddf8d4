package collect_test

import (
	"fmt"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/envelope"
	"keyroll/internal/items"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// An object is deleted with the last of its blobs that a row references, also one of a
// backup, and not before.
func TestAnObjectIsDeletedWithItsLastBlob(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		mail := contenttest.Mbox(4)
		w.MustImport(t, mail)
		object := w.BlobNames(t)
		copied := w.MustBackup(t, w.Mail)
		want := func(removed int64, files int, old bool) {
			t.Helper()
			if c := w.MustCollect(t, 0); c.Removed != removed {
				t.Errorf("%d objects removed, want %d", c.Removed, removed)
			}
			w.WantExact(t)
			names := w.BlobNames(t)
			if len(object) != 1 || len(names) != files || strings.Contains(strings.Join(names, " "), object[0]) != old {
				t.Errorf("%d objects, want %d, with the first one: %v", len(names), files, old)
			}
			if w.MustExport(t) != mail {
				t.Error("the mailbox reads otherwise")
			}
		}
		blobs := w.StoredBlobs(t)
		w.MustRenew(t, blobs[4].ID, w.Mail) // two of four: blobs are listed with those of the backup
		want(0, 2, true)
		w.MustRenew(t, store.NewID(), w.Mail)
		want(1, 2, true)
		w.MustExpire(t, copied)
		if c := w.MustCollect(t, 0); c.Removed != 0 { // its rows are left
			t.Errorf("%+v", c)
		}
		must(t, w.Backups.DeleteLeftoverRows(t.Context(), tenant))
		want(1, 1, false)
	})
}

// A collection that dies at any point is repeated by the next one.
func TestAnInterruptedCollectionOfObjectsIsRepeated(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{}) // fault points are counted
		w := newFixture(t, db)
		mail := contenttest.Mbox(4)
		w.MustImport(t, mail)
		for _, point := range []string{"collect.before-commit", "collect.part-deleted", "collect.part-forgotten"} {
			w.MustRenew(t, store.NewID(), w.Mail)
			if !contenttest.DieAt(point, 1, func() { w.MustCollect(t, 0) }) {
				t.Errorf("%s was not reached", point)
			}
			w.Reopen(t)
			if w.MustExport(t) != mail {
				t.Errorf("died at %s: the mailbox reads otherwise", point)
			}
			w.WantExact(t)
			if n := len(w.BlobNames(t)); n != 1 {
				t.Errorf("died at %s: %d objects", point, n)
			}
		}
	})
}

// The object of a process that died before it inserted rows has none, and its blobs neither.
func TestObjectsWithoutRowsAreOrphans(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustImport(t, contenttest.Mbox(4))
		batch, err := w.Items.NewBatch(t.Context())
		must(t, err)
		for range 3 {
			must(t, errorOf(batch.Put(t.Context(), items.Blob{ID: store.NewID(), Tenant: tenant}, envelope.NewKey(), strings.NewReader("text"))))
		}
		stored, err := batch.Commit(t.Context())
		must(t, err)
		c, err := w.CollectTenant(t.Context(), tenant, 0, true)
		must(t, err)
		if fmt.Sprint(c.Blobs, c.Orphans) != "2 1" {
			t.Errorf("%+v", c)
		}
		if c := w.MustCollect(t, 0); c.Removed != 1 {
			t.Errorf("%+v", c)
		}
		w.WantExact(t)
		wantCode(t, w.DB.InTx(t.Context(), func(tx *store.Tx) error { // too late
			return items.CheckGCFence(t.Context(), tx, stored)
		}), api.Conflict)
	})
}

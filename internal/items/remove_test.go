package items_test

import (
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/items"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// If an index leads to a row of another item, that item is not deleted: neither in
// place of a file that is replaced, nor with the remaining rows of a backup.
func TestADeletionReadsTheRowItselfAndNoIndex(t *testing.T) {
	const theirs = ` WHERE id = (SELECT MIN(id) FROM item WHERE container = ?1)`
	for name, one := range map[string]struct {
		index, moved string // a row of what goes becomes one of what stays, in the rows alone
	}{
		"an item of another container": {"item_container", `UPDATE item SET container = ?2` + theirs},
		"a blob of another item": {"sqlite_autoindex_blob_1",
			`UPDATE blob SET item = (SELECT MIN(id) FROM item WHERE container = ?2), sequence = 100 WHERE item = (SELECT MIN(id) FROM item WHERE container = ?1)`},
		"a key page of another container": {"key_page_place", `UPDATE key_page SET parent = ?2 WHERE id = (SELECT MIN(id) FROM key_page WHERE parent = ?1)`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFixture(t, storetest.SQLite(t)) // PostgreSQL leads to no row that has changed
			w.MustPut(t, "file", "old")
			b := w.MustBackup(t, w.Site)
			w.MustExpire(t, b)
			w.LoseIndexWrites(t, one.index, func() { w.Exec(t, one.moved, b.ID, w.Site.ID) })
			before := w.AllRows(t)
			for _, check := range []bool{false, true} {
				storetest.UseIndexes(t, w.DB, check)
				wantCode(t, w.Backups.DeleteLeftoverRows(t.Context(), tenant), api.Damaged)
				if after := w.AllRows(t); after != before {
					t.Errorf("check %v: before:\n%s\nafter:\n%s", check, before, after)
				}
			}
		})
	}
	t.Run("another file", func(t *testing.T) {
		w := newFixture(t, storetest.SQLite(t))
		w.MustPut(t, "a", "of a")
		w.LoseIndexWrites(t, "item_path", func() { w.Exec(t, `UPDATE item SET path_hash = x'00'`) })
		before := w.AllRows(t)
		_, err := w.Put(t.Context(), w.Site, "a", 3, strings.NewReader("new"))
		wantCode(t, err, api.Damaged)
		if after := w.AllRows(t); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
	t.Run("a blob of another file", func(t *testing.T) {
		w := newFixture(t, storetest.SQLite(t))
		w.MustPut(t, "a", "of a")
		w.MustPut(t, "b", "of b")
		w.LoseIndexWrites(t, "sqlite_autoindex_blob_1", func() {
			w.Exec(t, `UPDATE blob SET item = (SELECT MAX(id) FROM item), sequence = 100 WHERE item = (SELECT MIN(id) FROM item)`)
		})
		before := w.AllRows(t)
		_, err := w.Put(t.Context(), w.Site, "a", 3, strings.NewReader("new"))
		wantCode(t, err, api.Damaged)
		if after := w.AllRows(t); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// If an index contradicts the rows of items and blobs, nothing is deleted.
func TestRowsThatContradictTheIndexAreNotDeleted(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustPut(t, "a", "of a")
		w.MustPut(t, "b", "of b")
		var ids, blobs []int64
		must(t, w.DB.ViewOnce(t.Context(), func(tx *store.Tx) (err error) {
			if ids, err = tx.IDs(t.Context(), `SELECT id FROM item ORDER BY id`); err == nil {
				blobs, err = tx.IDs(t.Context(), `SELECT id FROM blob ORDER BY item`)
			}
			return err
		}))
		remove := func(tx *store.Tx, container int64, item, blob []int64) error {
			rows := items.Rows{Tenant: tenant, Container: container, Items: item, Blobs: []items.Blob{{ID: blob[0], Tenant: tenant, Item: item[0]}}}
			return rows.Remove(t.Context(), tx)
		}
		before := w.AllRows(t)
		for name, act := range map[string]func(tx *store.Tx) error{
			"an item of another container": func(tx *store.Tx) error {
				return remove(tx, w.Mail.ID, ids[:1], blobs[:1])
			},
			"a blob of another item": func(tx *store.Tx) error {
				return remove(tx, w.Site.ID, ids[:1], blobs[1:])
			},
			"a file with another path": func(tx *store.Tx) error {
				return items.ConfirmFile(t.Context(), tx, items.Row{Tenant: tenant, Container: w.Site.ID}, ids[0])
			},
		} {
			err := w.DB.InTx(t.Context(), act)
			if name == "a file with another path" {
				if err == nil {
					t.Error("it is confirmed")
				}
				continue
			}
			wantCode(t, err, api.Damaged)
			if after := w.AllRows(t); after != before {
				t.Errorf("%s: before:\n%s\nafter:\n%s", name, before, after)
			}
		}
		must(t, w.DB.InTx(t.Context(), func(tx *store.Tx) error {
			return remove(tx, w.Site.ID, ids[:1], blobs[:1])
		}))
	})
}

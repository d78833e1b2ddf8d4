package content_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/content"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// stored is a blob as seen in its row and its file.
type stored struct {
	id, item, page int64
	path           string
}

// storedBlobs returns the blobs of a fixture in the order of their ids.
func (w *fixture) storedBlobs(t testing.TB) (list []stored) {
	t.Helper()
	ctx := context.Background()
	must(t, w.db.ViewOnce(ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(ctx, `SELECT id, item, page FROM blob ORDER BY id`)
		if err != nil {
			return err
		}
		for rows.Next() {
			var s stored
			if err := rows.Scan(&s.id, &s.item, &s.page); err != nil {
				return err
			}
			list = append(list, s)
		}
		return rows.Err()
	}))
	for i, s := range list {
		for _, name := range w.blobNames(t) {
			if strings.HasSuffix(name, fmt.Sprintf("/%016x", s.id)) {
				list[i].path = filepath.Join(w.blobDir, name)
			}
		}
	}
	return list
}

func (w *fixture) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	ctx := context.Background()
	must(t, w.db.InTx(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(ctx, query, args...)
		if err == nil && n == 0 {
			err = errors.New("nothing was changed")
		}
		return err
	}))
}

// change rewrites the file of a blob with changed content.
func (s stored) change(t testing.TB, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(s.path)
	must(t, err)
	must(t, os.WriteFile(s.path, f(b), 0o600))
}

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 1; return b }
}

// Errors about damage name the item and the blob, never text of a user.
func TestDamageIsNamedPrecisely(t *testing.T) {
	const subject, path = "quarterly-subject", "secret-name.txt"
	type damage struct {
		do        func(t *testing.T, w *fixture, first, other stored) // damages the first blob of an item
		blobNamed bool                                                // beside the item
	}
	for name, d := range map[string]damage{
		"lost blob":   {func(t *testing.T, _ *fixture, a, _ stored) { must(t, os.Remove(a.path)) }, true},
		"first byte":  {func(t *testing.T, _ *fixture, a, _ stored) { a.change(t, flip(0)) }, true},
		"flipped bit": {func(t *testing.T, _ *fixture, a, _ stored) { a.change(t, flip(50)) }, true},
		"cut blob": {func(t *testing.T, _ *fixture, a, _ stored) {
			a.change(t, func(b []byte) []byte { return b[:len(b)-1] })
		}, true},
		"empty blob": {func(t *testing.T, _ *fixture, a, _ stored) { a.change(t, func([]byte) []byte { return nil }) }, true},
		"longer blob": {func(t *testing.T, _ *fixture, a, _ stored) {
			a.change(t, func(b []byte) []byte { return append(b, 0) })
		}, true},
		"swapped blobs": {func(t *testing.T, _ *fixture, a, b stored) {
			must(t, os.Rename(a.path, a.path+".x"))
			must(t, os.Rename(b.path, a.path))
			must(t, os.Rename(a.path+".x", b.path))
		}, true},
		"page lost": {func(t *testing.T, w *fixture, a, _ stored) { w.exec(t, `DELETE FROM key_page WHERE id = ?1`, a.page) }, true},
		"page of another": {func(t *testing.T, w *fixture, a, _ stored) {
			w.exec(t, `UPDATE blob SET page = ?2 WHERE id = ?1`, a.id, w.site.Page)
		}, true},
		"page altered": {func(t *testing.T, w *fixture, a, _ stored) {
			w.exec(t, `UPDATE key_page SET version = 2 WHERE id = ?1`, a.page)
		}, true},
		"slot of another": {func(t *testing.T, w *fixture, a, b stored) {
			w.exec(t, `UPDATE blob SET page = ?2 WHERE id = ?1`, a.id, b.page)
		}, true},
		"size altered": {func(t *testing.T, w *fixture, a, _ stored) {
			w.exec(t, `UPDATE blob SET size = size - 1 WHERE id = ?1`, a.id)
		}, false},
		"sizes altered": {func(t *testing.T, w *fixture, a, _ stored) {
			w.exec(t, `UPDATE blob SET size = size - 1 WHERE id = ?1`, a.id)
			w.exec(t, `UPDATE item SET size = size - 1 WHERE id = ?1`, a.item)
		}, false},
		"blob row lost": {func(t *testing.T, w *fixture, a, _ stored) { w.exec(t, `DELETE FROM blob WHERE id = ?1`, a.id) }, false},
		"metadata of another": {func(t *testing.T, w *fixture, a, b stored) {
			w.exec(t, `UPDATE item SET metadata = (SELECT metadata FROM item WHERE id = ?2) WHERE id = ?1`, a.item, b.item)
		}, false},
		"older version": {func(t *testing.T, w *fixture, a, _ stored) {
			w.exec(t, `UPDATE item SET version = 9 WHERE id = ?1`, a.item)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			check := func(t *testing.T, w *fixture, first stored, err error) {
				t.Helper()
				wantCode(t, err, api.Damaged)
				text := err.Error()
				if !strings.Contains(text, fmt.Sprintf("item %d", first.item)) || d.blobNamed && !strings.Contains(text, fmt.Sprintf("blob %d", first.id)) {
					t.Errorf("item %d and blob %d are not named: %v", first.item, first.id, err)
				}
				for _, secret := range []string{subject, path, "secret", w.blobDir} {
					if strings.Contains(text, secret) {
						t.Errorf("the error shows %q: %v", secret, err)
					}
				}
			}
			t.Run("file", func(t *testing.T) {
				w := newFixture(t, storetest.One(t))
				w.put(t, path, randomContent(1, 2*blobSize))
				w.put(t, "other", randomContent(2, 100))
				blobs := w.storedBlobs(t)
				d.do(t, w, blobs[0], blobs[2])
				check(t, w, blobs[0], w.Check(t.Context(), w.site, firstDamage))
				check(t, w, blobs[0], w.Get(t.Context(), w.site, path, 0, -1, new(bytes.Buffer)))
			})
			t.Run("message", func(t *testing.T) {
				w := newFixture(t, storetest.One(t))
				message := "From a\nSubject: " + subject + "\n\n" + strings.Repeat("x", 100) + "\n\n"
				w.importMail(t, message)
				w.importMail(t, message)
				blobs := w.storedBlobs(t)
				d.do(t, w, blobs[0], blobs[1])
				check(t, w, blobs[0], w.Check(t.Context(), w.mail, firstDamage))
			})
		})
	}
}

func TestAMessageWithATooSmallStoredSizeIsDamaged(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	w.importMail(t, mbox(1))
	m := w.messages(t)[0]
	w.exec(t, `UPDATE item SET size = 3`)
	w.exec(t, `UPDATE blob SET size = 3`)
	wantCode(t, w.Message(t.Context(), w.mail, m.ID, new(bytes.Buffer)), api.Damaged)
	list, err := w.Messages(t.Context(), w.mail, 0, 10)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d messages, error %v", len(list), err)
	}
	wantCode(t, list[0].Damaged, api.Damaged)
}

// firstDamage makes Check return the first damage.
func firstDamage(c content.Checked) error { return c.Err }

// Two files that were exchanged in the database are not mistaken for each other.
func TestExchangedPathsAreDetected(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	w.put(t, "salaries", "secret")
	w.put(t, "menu", "soup")
	blobs := w.storedBlobs(t)
	hash := func(item int64) (h []byte) {
		must(t, w.db.ViewOnce(t.Context(), func(tx *store.Tx) error {
			return tx.QueryRow(t.Context(), `SELECT path_hash FROM item WHERE id = ?1`, item).Scan(&h)
		}))
		return h
	}
	a, b := hash(blobs[0].item), hash(blobs[1].item)
	w.exec(t, `UPDATE item SET path_hash = NULL WHERE id = ?1`, blobs[0].item)
	w.exec(t, `UPDATE item SET path_hash = ?2 WHERE id = ?1`, blobs[1].item, a)
	w.exec(t, `UPDATE item SET path_hash = ?2 WHERE id = ?1`, blobs[0].item, b)
	wantCode(t, w.Get(t.Context(), w.site, "menu", 0, -1, new(bytes.Buffer)), api.Damaged)
	wantCode(t, w.Check(t.Context(), w.site, firstDamage), api.Damaged)
}

// If rows reorder the blobs of a file, omit the last one or include one of another
// file, the file cannot be opened.
func TestReorderedMissingOrForeignBlobsOfAFileAreRefused(t *testing.T) {
	for name, alter := range map[string]func(t *testing.T, w *fixture, blobs []stored){
		"pieces swapped": func(t *testing.T, w *fixture, b []stored) {
			w.exec(t, `UPDATE blob SET sequence = 9 WHERE id = ?1`, b[1].id)
			w.exec(t, `UPDATE blob SET sequence = 1 WHERE id = ?1`, b[2].id)
			w.exec(t, `UPDATE blob SET sequence = 2 WHERE id = ?1`, b[1].id)
		},
		"last piece cut": func(t *testing.T, w *fixture, b []stored) {
			w.exec(t, `DELETE FROM blob WHERE id = ?1`, b[3].id)
			w.exec(t, `UPDATE item SET size = ?2 WHERE id = ?1`, b[0].item, 3*blobSize)
		},
		"piece of another file": func(t *testing.T, w *fixture, b []stored) {
			w.exec(t, `DELETE FROM blob WHERE id = ?1`, b[1].id)
			w.exec(t, `UPDATE blob SET item = ?2, sequence = 1 WHERE id = ?1`, b[5].id, b[0].item)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFixture(t, storetest.One(t))
			w.put(t, "a", randomContent(1, 4*blobSize))
			w.put(t, "b", randomContent(2, 4*blobSize))
			alter(t, w, w.storedBlobs(t))
			wantCode(t, w.Get(t.Context(), w.site, "a", 0, -1, new(bytes.Buffer)), api.Damaged)
			wantCode(t, w.Check(t.Context(), w.site, firstDamage), api.Damaged)
		})
	}
}

// One damaged item neither hides another nor stops the check.
func TestACheckContinuesAfterDamage(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.importMail(t, mbox(12))
		for i := range 6 {
			w.put(t, fmt.Sprint("file", i), randomContent(i, blobSize+1))
		}
		blobs := w.storedBlobs(t)
		want := make(map[int64]bool)
		for _, i := range []int{0, 7, 13} {
			must(t, os.Remove(blobs[i].path))
			want[blobs[i].item] = true
		}
		lost := blobs[20]
		w.exec(t, `DELETE FROM blob WHERE item = ?1`, lost.item)
		want[lost.item] = true
		items := 0
		got := make(map[int64]bool)
		report := func(c content.Checked) error {
			items++
			if c.Err != nil {
				if !fail.Is(c.Err, api.Damaged) {
					t.Error(c.Err)
				}
				got[c.Item] = true
			}
			return nil
		}
		must(t, w.Check(t.Context(), w.mail, report))
		must(t, w.Check(t.Context(), w.site, report))
		if items != 18 || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d items met, damaged %v, want %v", items, got, want)
		}
	})
}

// A file that is damaged, or shares a damaged key page, can be put again.
func TestADamagedFileCanBeReplaced(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		for i := range 5 {
			w.put(t, fmt.Sprint("file", i), randomContent(i, 10))
		}
		if _, err := w.Fold(t.Context(), w.site); err != nil {
			t.Fatal(err)
		}
		page := w.storedBlobs(t)[0].page
		w.exec(t, `UPDATE key_page SET version = 9 WHERE id = ?1`, page)
		w.put(t, "file0", "new")
		w.exec(t, `DELETE FROM key_page WHERE id = ?1`, page)
		for i := range 5 {
			path := fmt.Sprint("file", i)
			w.put(t, path, "new")
			if w.get(t, path) != "new" {
				t.Errorf("%s is not the new one", path)
			}
		}
		w.wantHealthy(t, true)
	})
}

func TestReplacingAFileRemovesItsKeys(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		for i := range 6 { // each a page of its own, then folded into one
			w.put(t, fmt.Sprint("file", i), randomContent(i, 10))
		}
		must(t, errorOf(w.Fold(t.Context(), w.site)))
		if n := w.pages(t); n != 1 {
			t.Fatalf("%d pages", n)
		}
		for i := range 6 {
			w.put(t, fmt.Sprint("file", i), randomContent(i, 20))
			w.wantHealthy(t, true) // as many slots as blobs
		}
		if n := w.pages(t); n != 6 {
			t.Errorf("%d pages, want one for each new file", n)
		}
	})
}

func TestNoUserDataIsStoredInPlaintext(t *testing.T) {
	w := newFixture(t, storetest.SQLite(t))
	secrets := []string{"subject-of-a-user", "sender-of-a-user", "body-of-a-user", "path-of-a-user", "file-of-a-user", "alice@contoso", "https://contoso"}
	w.importMail(t, "From sender-of-a-user Mon Jan  1 00:00:00 2024\nSubject: subject-of-a-user\nFrom: sender-of-a-user\n\nbody-of-a-user\n")
	w.put(t, "dir/path-of-a-user", strings.Repeat("file-of-a-user", 10_000))
	w.put(t, "dir/path-of-a-user", "file-of-a-user once more")
	w.messages(t)
	var row struct{ seq, name, file string }
	must(t, w.db.ViewOnce(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT seq, name, file FROM pragma_database_list WHERE name = ?1`, "main").Scan(&row.seq, &row.name, &row.file)
	}))
	found := 0
	for _, dir := range []string{filepath.Dir(row.file), w.blobDir} {
		for path, b := range files(t, dir) {
			found++
			for _, secret := range secrets {
				if bytes.Contains(b, []byte(secret)) {
					t.Errorf("%s holds %q", path, secret)
				}
			}
		}
	}
	if found < 4 { // the database, its log, two blobs
		t.Errorf("only %d files looked at", found)
	}
}

package content_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 1; return b }
}

// Errors about damage name the item and the blob, never text of a user.
func TestDamageIsNamedPrecisely(t *testing.T) {
	const subject, path = "quarterly-subject", "secret-name.txt"
	type damage struct {
		do        func(t *testing.T, w *fixture, first, other contenttest.Stored) // damages the first blob of an item
		blobNamed bool                                                            // beside the item
	}
	for name, d := range map[string]damage{
		"lost blob":   {func(t *testing.T, _ *fixture, a, _ contenttest.Stored) { must(t, os.Remove(a.Path)) }, true},
		"first byte":  {func(t *testing.T, _ *fixture, a, _ contenttest.Stored) { a.Change(t, flip(0)) }, true},
		"flipped bit": {func(t *testing.T, _ *fixture, a, _ contenttest.Stored) { a.Change(t, flip(50)) }, true},
		"cut blob": {func(t *testing.T, _ *fixture, a, _ contenttest.Stored) {
			a.Change(t, func(b []byte) []byte { return b[:len(b)-1] })
		}, true},
		"empty blob": {func(t *testing.T, _ *fixture, a, _ contenttest.Stored) {
			a.Change(t, func([]byte) []byte { return nil })
		}, true},
		"longer blob": {func(t *testing.T, _ *fixture, a, _ contenttest.Stored) {
			a.Change(t, func(b []byte) []byte { return append(b, 0) })
		}, true},
		"swapped blobs": {func(t *testing.T, _ *fixture, a, b contenttest.Stored) {
			must(t, os.Rename(a.Path, a.Path+".x"))
			must(t, os.Rename(b.Path, a.Path))
			must(t, os.Rename(a.Path+".x", b.Path))
		}, true},
		"page lost": {func(t *testing.T, w *fixture, a, _ contenttest.Stored) {
			w.Exec(t, `DELETE FROM key_page WHERE id = ?1`, a.Page)
		}, true},
		"page of another": {func(t *testing.T, w *fixture, a, _ contenttest.Stored) {
			w.Exec(t, `UPDATE blob SET page = ?2 WHERE id = ?1`, a.ID, w.Site.Page)
		}, true},
		"page altered": {func(t *testing.T, w *fixture, a, _ contenttest.Stored) {
			w.Exec(t, `UPDATE key_page SET version = 2 WHERE id = ?1`, a.Page)
		}, true},
		"slot of another": {func(t *testing.T, w *fixture, a, b contenttest.Stored) {
			w.Exec(t, `UPDATE blob SET page = ?2 WHERE id = ?1`, a.ID, b.Page)
		}, true},
		"size altered": {func(t *testing.T, w *fixture, a, _ contenttest.Stored) {
			w.Exec(t, `UPDATE blob SET size = size - 1 WHERE id = ?1`, a.ID)
		}, false},
		"sizes altered": {func(t *testing.T, w *fixture, a, _ contenttest.Stored) {
			w.Exec(t, `UPDATE blob SET size = size - 1 WHERE id = ?1`, a.ID)
			w.Exec(t, `UPDATE item SET size = size - 1 WHERE id = ?1`, a.Item)
		}, false},
		"blob row lost": {func(t *testing.T, w *fixture, a, _ contenttest.Stored) {
			w.Exec(t, `DELETE FROM blob WHERE id = ?1`, a.ID)
		}, false},
		"metadata of another": {func(t *testing.T, w *fixture, a, b contenttest.Stored) {
			w.Exec(t, `UPDATE item SET metadata = (SELECT metadata FROM item WHERE id = ?2) WHERE id = ?1`, a.Item, b.Item)
		}, false},
		"older version": {func(t *testing.T, w *fixture, a, _ contenttest.Stored) {
			w.Exec(t, `UPDATE item SET version = 9 WHERE id = ?1`, a.Item)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			check := func(t *testing.T, w *fixture, first contenttest.Stored, err error) {
				t.Helper()
				wantCode(t, err, api.Damaged)
				text := err.Error()
				if !strings.Contains(text, fmt.Sprintf("item %d", first.Item)) || d.blobNamed && !strings.Contains(text, fmt.Sprintf("blob %d", first.ID)) {
					t.Errorf("item %d and blob %d are not named: %v", first.Item, first.ID, err)
				}
				for _, secret := range []string{subject, path, "secret", w.BlobDir} {
					if strings.Contains(text, secret) {
						t.Errorf("the error shows %q: %v", secret, err)
					}
				}
			}
			t.Run("file", func(t *testing.T) {
				w := newFixture(t, storetest.One(t))
				w.MustPut(t, path, contenttest.RandomContent(1, 2*blobSize))
				w.MustPut(t, "other", contenttest.RandomContent(2, 100))
				blobs := w.StoredBlobs(t)
				d.do(t, w, blobs[0], blobs[2])
				check(t, w, blobs[0], w.Check(t.Context(), w.Site, firstDamage))
				check(t, w, blobs[0], w.Get(t.Context(), w.Site, path, 0, -1, new(bytes.Buffer)))
			})
			t.Run("message", func(t *testing.T) {
				w := newFixture(t, storetest.One(t))
				message := "From a\nSubject: " + subject + "\n\n" + strings.Repeat("x", 100) + "\n\n"
				w.MustImport(t, message)
				w.MustImport(t, message)
				blobs := w.StoredBlobs(t)
				d.do(t, w, blobs[0], blobs[1])
				check(t, w, blobs[0], w.Check(t.Context(), w.Mail, firstDamage))
			})
		})
	}
}

func TestAMessageWithATooSmallStoredSizeIsDamaged(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	w.MustImport(t, contenttest.Mbox(1))
	m := w.MustMessages(t)[0]
	w.Exec(t, `UPDATE item SET size = 3`)
	w.Exec(t, `UPDATE blob SET size = 3`)
	wantCode(t, w.Message(t.Context(), w.Mail, m.ID, new(bytes.Buffer)), api.Damaged)
	list, err := w.Messages(t.Context(), w.Mail, 0, 10)
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
	w.MustPut(t, "salaries", "secret")
	w.MustPut(t, "menu", "soup")
	blobs := w.StoredBlobs(t)
	hash := func(item int64) (h []byte) {
		must(t, w.DB.ViewOnce(t.Context(), func(tx *store.Tx) error {
			return tx.QueryRow(t.Context(), `SELECT path_hash FROM item WHERE id = ?1`, item).Scan(&h)
		}))
		return h
	}
	a, b := hash(blobs[0].Item), hash(blobs[1].Item)
	w.Exec(t, `UPDATE item SET path_hash = NULL WHERE id = ?1`, blobs[0].Item)
	w.Exec(t, `UPDATE item SET path_hash = ?2 WHERE id = ?1`, blobs[1].Item, a)
	w.Exec(t, `UPDATE item SET path_hash = ?2 WHERE id = ?1`, blobs[0].Item, b)
	wantCode(t, w.Get(t.Context(), w.Site, "menu", 0, -1, new(bytes.Buffer)), api.Damaged)
	wantCode(t, w.Check(t.Context(), w.Site, firstDamage), api.Damaged)
}

// If rows reorder the blobs of a file, omit the last one or include one of another
// file, the file cannot be opened.
func TestReorderedMissingOrForeignBlobsOfAFileAreRefused(t *testing.T) {
	for name, alter := range map[string]func(t *testing.T, w *fixture, blobs []contenttest.Stored){
		"pieces swapped": func(t *testing.T, w *fixture, b []contenttest.Stored) {
			w.Exec(t, `UPDATE blob SET sequence = 9 WHERE id = ?1`, b[1].ID)
			w.Exec(t, `UPDATE blob SET sequence = 1 WHERE id = ?1`, b[2].ID)
			w.Exec(t, `UPDATE blob SET sequence = 2 WHERE id = ?1`, b[1].ID)
		},
		"last piece cut": func(t *testing.T, w *fixture, b []contenttest.Stored) {
			w.Exec(t, `DELETE FROM blob WHERE id = ?1`, b[3].ID)
			w.Exec(t, `UPDATE item SET size = ?2 WHERE id = ?1`, b[0].Item, 3*blobSize)
		},
		"piece of another file": func(t *testing.T, w *fixture, b []contenttest.Stored) {
			w.Exec(t, `DELETE FROM blob WHERE id = ?1`, b[1].ID)
			w.Exec(t, `UPDATE blob SET item = ?2, sequence = 1 WHERE id = ?1`, b[5].ID, b[0].Item)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFixture(t, storetest.One(t))
			w.MustPut(t, "a", contenttest.RandomContent(1, 4*blobSize))
			w.MustPut(t, "b", contenttest.RandomContent(2, 4*blobSize))
			alter(t, w, w.StoredBlobs(t))
			wantCode(t, w.Get(t.Context(), w.Site, "a", 0, -1, new(bytes.Buffer)), api.Damaged)
			wantCode(t, w.Check(t.Context(), w.Site, firstDamage), api.Damaged)
		})
	}
}

// One damaged item neither hides another nor stops the check.
func TestACheckContinuesAfterDamage(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustImport(t, contenttest.Mbox(12))
		for i := range 6 {
			w.MustPut(t, fmt.Sprint("file", i), contenttest.RandomContent(i, blobSize+1))
		}
		blobs := w.StoredBlobs(t)
		want := make(map[int64]bool)
		for _, i := range []int{0, 7, 13} {
			blobs[i].Lose(t)
			want[blobs[i].Item] = true
		}
		lost := blobs[20]
		w.Exec(t, `DELETE FROM blob WHERE item = ?1`, lost.Item)
		want[lost.Item] = true
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
		must(t, w.Check(t.Context(), w.Mail, report))
		must(t, w.Check(t.Context(), w.Site, report))
		if items != 18 || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d items met, damaged %v, want %v", items, got, want)
		}
	})
}

// Damage of an object is reported for exactly the blobs that it affects.
func TestDamageOfASharedObjectNamesItsBlobs(t *testing.T) {
	for name, one := range map[string]struct {
		damage func(t *testing.T, path string, blobs []contenttest.Stored)
		first  int    // of the damaged blobs of the object's four
		last   int    // of them
		says   string // each error
	}{
		"lost":                     {func(t *testing.T, path string, _ []contenttest.Stored) { must(t, os.Remove(path)) }, 0, 3, "is missing from the blob store"},
		"cut in the third blob":    {func(t *testing.T, path string, b []contenttest.Stored) { must(t, os.Truncate(path, b[2].At+10)) }, 2, 3, "is truncated"},
		"cut after the first blob": {func(t *testing.T, path string, b []contenttest.Stored) { must(t, os.Truncate(path, b[0].Len)) }, 1, 3, "is truncated: it has 0 of"},
		"a flipped bit":            {func(t *testing.T, _ string, b []contenttest.Stored) { b[2].Change(t, flip(20)) }, 2, 2, ""},
		"a byte too much": {func(t *testing.T, _ string, b []contenttest.Stored) {
			b[1].Change(t, func(b []byte) []byte { return append(b, 0) })
		}, 2, 3, ""},
		"a longer file": {func(t *testing.T, _ string, b []contenttest.Stored) {
			b[3].Change(t, func(b []byte) []byte { return append(b, 0) })
		}, 4, 3, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFixture(t, storetest.One(t))
			w.MustImport(t, contenttest.Mbox(9)) // in objects of four, four and one
			blobs := w.StoredBlobs(t)
			object := blobs[4:8]
			for _, b := range object {
				if !b.Shared || b.Path != object[0].Path {
					t.Fatalf("%+v", blobs)
				}
			}
			one.damage(t, object[0].Path, object)
			var want, got []int64
			for _, b := range object[one.first : one.last+1] {
				want = append(want, b.Item)
			}
			must(t, w.Check(t.Context(), w.Mail, func(c content.Checked) error {
				if c.Err == nil {
					return nil
				}
				got = append(got, c.Item)
				i := slices.IndexFunc(object, func(b contenttest.Stored) bool { return b.Item == c.Item })
				if !fail.Is(c.Err, api.Damaged) || !strings.Contains(c.Err.Error(), one.says) || i < 0 || !strings.Contains(c.Err.Error(), fmt.Sprintf("blob %d", object[i].ID)) {
					t.Errorf("item %d: %v", c.Item, c.Err)
				}
				return nil
			}))
			if !slices.Equal(got, want) {
				t.Errorf("damaged: %v, want %v", got, want)
			}
		})
	}
}

// A file that is damaged, or shares a damaged key page, can be put again.
func TestADamagedFileCanBeReplaced(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		for i := range 5 {
			w.MustPut(t, fmt.Sprint("file", i), contenttest.RandomContent(i, 10))
		}
		if _, err := w.Renewer.Fold(t.Context(), w.Site); err != nil {
			t.Fatal(err)
		}
		page := w.StoredBlobs(t)[0].Page
		w.Exec(t, `UPDATE key_page SET version = 9 WHERE id = ?1`, page)
		w.MustPut(t, "file0", "new")
		w.Exec(t, `DELETE FROM key_page WHERE id = ?1`, page)
		for i := range 5 {
			path := fmt.Sprint("file", i)
			w.MustPut(t, path, "new")
			if w.MustGet(t, path) != "new" {
				t.Errorf("%s is not the new one", path)
			}
		}
		w.WantHealthy(t, true)
	})
}

func TestReplacingAFileRemovesItsKeys(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		for i := range 6 { // each a page of its own, then folded into one
			w.MustPut(t, fmt.Sprint("file", i), contenttest.RandomContent(i, 10))
		}
		must(t, errorOf(w.Renewer.Fold(t.Context(), w.Site)))
		if n := w.Pages(t); n != 1 {
			t.Fatalf("%d pages", n)
		}
		for i := range 6 {
			w.MustPut(t, fmt.Sprint("file", i), contenttest.RandomContent(i, 20))
			w.WantHealthy(t, true) // as many slots as blobs
		}
		if n := w.Pages(t); n != 6 {
			t.Errorf("%d pages, want one for each new file", n)
		}
	})
}

func TestNoUserDataIsStoredInPlaintext(t *testing.T) {
	w := newFixture(t, storetest.SQLite(t))
	secrets := []string{"subject-of-a-user", "sender-of-a-user", "body-of-a-user", "path-of-a-user", "file-of-a-user", "alice@contoso", "https://contoso"}
	w.MustImport(t, "From sender-of-a-user Mon Jan  1 00:00:00 2024\nSubject: subject-of-a-user\nFrom: sender-of-a-user\n\nbody-of-a-user\n")
	w.MustPut(t, "dir/path-of-a-user", strings.Repeat("file-of-a-user", 10_000))
	w.MustPut(t, "dir/path-of-a-user", "file-of-a-user once more")
	w.MustMessages(t)
	var row struct{ seq, name, file string }
	must(t, w.DB.ViewOnce(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT seq, name, file FROM pragma_database_list WHERE name = ?1`, "main").Scan(&row.seq, &row.name, &row.file)
	}))
	found := 0
	for _, dir := range []string{filepath.Dir(row.file), w.BlobDir} {
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

// files returns the bytes of every file under dir.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		all[path], err = os.ReadFile(path)
		return err
	}))
	return all
}

package compact_test

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"keyroll/internal/compact"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/items"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// storeAlone stores messages and files as a node of an earlier version does, each blob in an
// object of its own, with a backup of the mailbox. It returns the mailbox and the site.
func storeAlone(t testing.TB, w *fixture) (mail string, files map[string]string) {
	t.Helper()
	w.Older = true
	mail, files = contenttest.Mbox(10), map[string]string{}
	w.MustImport(t, mail)
	w.MustBackup(t, w.Mail)
	for i := range 5 {
		path := fmt.Sprint("file", i)
		files[path] = contenttest.RandomContent(i, []int{0, 10, 9000, 20_000, contenttest.SmallBlob + 1}[i])
		w.MustPut(t, path, files[path])
	}
	w.Older = false
	w.Reopen(t)
	return mail, files
}

// wantContent fails unless mailbox, backups and site are read as they were stored.
func wantContent(t testing.TB, w *fixture, mail string, files map[string]string) {
	t.Helper()
	if w.MustExport(t) != mail {
		t.Error("the mailbox reads otherwise")
	}
	for _, b := range w.AllBackups(t) {
		var got strings.Builder
		must(t, w.Export(t.Context(), b.Container, &got))
		if got.String() != mail {
			t.Error("the backup reads otherwise")
		}
	}
	if got := w.FilesOf(t, w.Site); !maps.Equal(got, files) {
		t.Errorf("%d files, or others", len(got))
	}
}

func TestSmallBlobsOfEarlierVersionsAreCombined(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		mail, files := storeAlone(t, w)
		if n := len(w.BlobNames(t)); n != 10+6 {
			t.Fatalf("%d objects", n)
		}
		w.Older = true
		if done := w.MustCompact(t); done.Blobs != 0 {
			t.Errorf("beside an older node: %+v", done)
		}
		w.Older = false
		done := w.MustCompact(t)
		if done.Blobs != 14 || done.Objects != 1 { // the messages, three files, and the end of one
			t.Errorf("%+v", done)
		}
		wantContent(t, w, mail, files)
		w.MustCollect(t, 0)
		wantContent(t, w, mail, files)
		w.WantExact(t)
		if n := len(w.BlobNames(t)); n != 1+2 {
			t.Errorf("%d objects are left", n)
		}
		if done := w.MustCompact(t); done.Blobs != 0 {
			t.Errorf("the next run: %+v", done)
		}
	})
}

func TestFewSmallBlobsStayAlone(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	w.MustPut(t, "a", "one")
	if done := w.MustCompact(t); done.Blobs != 0 {
		t.Errorf("%+v", done)
	}
}

func TestSmallObjectsAreCombined(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		mail := ""
		for range 5 {
			w.MustImport(t, contenttest.Mbox(4))
			mail += contenttest.Mbox(4)
		}
		w.MustBackup(t, w.Mail)
		if done := w.MustCompact(t); done.Blobs != 20 || done.Objects != 2 { // of at most 16 blobs
			t.Errorf("%+v", done)
		}
		wantContent(t, w, mail, map[string]string{})
		if c := w.MustCollect(t, time.Hour); c.Removed != 0 {
			t.Errorf("%d objects removed within the grace period", c.Removed)
		}
		if c := w.MustCollect(t, 0); c.Removed != 5 {
			t.Errorf("%d objects removed", c.Removed)
		}
		wantContent(t, w, mail, map[string]string{})
		w.WantExact(t)
		if done := w.MustCompact(t); done.Blobs != 0 { // one is small, the other is full
			t.Errorf("the next run: %+v", done)
		}
	})
}

// What is left of an object is moved once more than half of it is dead.
func TestSparseObjectsAreMoved(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		sparse := compact.New(w.DB, w.Items, compact.DefaultLimits)
		run := func() compact.Compacted {
			done, err := sparse.Run(t.Context())
			must(t, err)
			return done
		}
		mail := contenttest.Mbox(4)
		w.MustImport(t, mail)
		blobs := w.StoredBlobs(t)
		w.MustRenew(t, blobs[2].ID, w.Mail) // two of four
		w.MustCollect(t, time.Hour)
		if done := run(); done.Blobs != 0 {
			t.Errorf("half of it is dead: %+v", done)
		}
		w.MustRenew(t, blobs[3].ID, w.Mail)
		w.MustCollect(t, time.Hour)
		if done := run(); done.Blobs != 1 { // the fourth one
			t.Errorf("%+v", done)
		}
		wantContent(t, w, mail, map[string]string{})
		w.MustCollect(t, time.Hour)
		wantContent(t, w, mail, map[string]string{})
		w.WantExact(t)
	})
}

// What others replace, or what turns out to be cut, while a compaction reads it is left out.
func TestWhatChangesWhileItIsReadIsNotMoved(t *testing.T) {
	const n = 8
	mail := ""
	for i := range n {
		mail += fmt.Sprintf("From a\nSubject: %d\n\n%s\n\n", i, strings.Repeat("x\n", 50_000))
	}
	for name, one := range map[string]struct {
		change func(t *testing.T, w *fixture, blobs []contenttest.Stored)
		moved  int64
	}{
		"re-encrypted": {func(t *testing.T, w *fixture, _ []contenttest.Stored) {
			w.MustRenew(t, store.NewID(), w.Mail)
			w.MustCollect(t, time.Hour)
		}, 0},
		"cut": {func(t *testing.T, _ *fixture, blobs []contenttest.Stored) {
			must(t, os.Truncate(blobs[3].Path, blobs[3].At+90_000)) // the object that is open
		}, n - 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFixture(t, storetest.One(t))
			w.MustImport(t, mail) // in two objects of four
			opens := w.CountOpens()
			opens.AtFirstRead = func() { one.change(t, w, w.StoredBlobs(t)) }
			done, err := compact.New(w.DB, w.Items, compact.Limits{Small: 1 << 20, AtLeast: 1, Blobs: 100}).Run(t.Context())
			must(t, err)
			if done.Blobs != one.moved || opens.Unclosed.Load() != 0 {
				t.Errorf("%+v; %d readers were not closed", done, opens.Unclosed.Load())
			}
			damaged := int64(0)
			must(t, w.Check(t.Context(), w.Mail, func(c content.Checked) error {
				if c.Err != nil {
					damaged++
				}
				return nil
			}))
			if want := one.moved / (n - 1); damaged != want {
				t.Errorf("%d damaged messages, want %d", damaged, want)
			}
		})
	}
}

// A damaged blob stays where it is, and the same damage is reported.
func TestDamagedBlobsAreNotMoved(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		storeAlone(t, w)
		damage := func(list []contenttest.Stored) {
			must(t, os.Remove(list[1].Path))
			list[3].Change(t, func(b []byte) []byte { return b[:len(b)-1] })
			list[5].Change(t, func(b []byte) []byte { return append(b, 0) })
		}
		var alone []contenttest.Stored // one row of each message
		for i, b := range w.StoredBlobs(t) {
			if i%2 == 0 && i < 20 {
				alone = append(alone, b)
			}
		}
		damage(alone)
		reports := func() (list []string) {
			must(t, w.Check(t.Context(), w.Mail, func(c content.Checked) error {
				if c.Err != nil {
					list = append(list, c.Err.Error())
				}
				return nil
			}))
			return list
		}
		before := reports()
		if done := w.MustCompact(t); done.Blobs != 11 {
			t.Errorf("%+v", done)
		}
		w.MustCollect(t, 0)
		if after := reports(); len(before) != 3 || fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("before: %q\nafter: %q", before, after)
		}
	})
}

// While a copy is under way, its rows may yet be inserted with the places that it has read.
func TestNothingIsMovedWhileACopyIsUnderWay(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		mail, files := storeAlone(t, w)
		id := store.NewID()
		must(t, w.DB.InTx(t.Context(), func(tx *store.Tx) error { return items.InsertUnfinished(t.Context(), tx, tenant, id, true) }))
		before := w.BlobNames(t)
		if done := w.MustCompact(t); done.Blobs != 0 || len(w.BlobNames(t)) != len(before) {
			t.Errorf("%+v", done)
		}
		must(t, w.DB.InTx(t.Context(), func(tx *store.Tx) error {
			_, err := items.DeleteUnfinished(t.Context(), tx, id, true)
			return err
		}))
		if done := w.MustCompact(t); done.Blobs != 14 {
			t.Errorf("%+v", done)
		}
		wantContent(t, w, mail, files)
	})
}

// A blob that was moved while its item is dropped by one container and kept by another is
// counted once.
func TestAMovedBlobThatWasDroppedIsCountedOnce(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		mail := contenttest.Mbox(4)
		for range 3 {
			w.MustImport(t, mail)
		}
		copied := w.MustBackup(t, w.Mail)
		w.MustRenew(t, store.NewID(), w.Mail) // the blobs of the backup are dropped by the mailbox
		if done := w.MustCompact(t); done.Blobs == 0 {
			t.Errorf("%+v", done)
		}
		w.MustExpire(t, copied)
		must(t, w.Backups.DeleteLeftoverRows(t.Context(), tenant))
		w.MustCollect(t, time.Hour)
		w.MustCollect(t, time.Hour)
		w.WantExact(t)
		wantContent(t, w, mail+mail+mail, map[string]string{})
	})
}

// A read that has begun continues at the new place of a blob, also once the file was replaced
// and the old object deleted.
func TestAReadContinuesAfterItsBlobsWereMoved(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		_, files := storeAlone(t, w)
		for _, path := range []string{"file2", "file4"} {
			reader, err := w.Open(t.Context(), w.Site, path)
			must(t, err)
			defer reader.Close()
			w.MustCompact(t)
			w.MustPut(t, path, "new")
			w.MustCollect(t, 0)
			for _, r := range [][2]int64{{0, -1}, {5, 10}, {reader.Size - 1, 1}} {
				want := files[path][r[0]:]
				if r[1] >= 0 {
					want = want[:r[1]]
				}
				var got strings.Builder
				if must(t, reader.WriteRange(t.Context(), r[0], r[1], &got)); got.String() != want {
					t.Errorf("%s: %d bytes, or others", path, got.Len())
				}
			}
			w.MustPut(t, "more", path)
			w.MustPut(t, "more of it", path)
		}
	})
}

func TestAnInterruptedCompactionLosesNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{}) // fault points are counted
		w := newFixture(t, db)
		mail, files := storeAlone(t, w)
		for i, point := range []string{"compact.objects-durable", "compact.before-commit", "compact.after-commit"} {
			if !contenttest.DieAt(point, 1, func() { w.MustCompact(t) }) {
				t.Errorf("%s was not reached", point)
			}
			w.Reopen(t)
			wantContent(t, w, mail, files)
			w.MustCollect(t, 0)
			wantContent(t, w, mail, files)
			w.WantExact(t)
			if moved := len(w.BlobNames(t)) == 1+2; moved != (i == 2) {
				t.Errorf("died at %s: %d objects", point, len(w.BlobNames(t)))
			}
		}
	})
}

// Two nodes compact the same objects, while content is re-encrypted and collected.
func TestTwoNodesCompactTheSameObjects(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		mail, files := storeAlone(t, w)
		other := w.Connect(w.Blobs)
		for range 3 {
			w.MustImport(t, contenttest.Mbox(4))
			mail += contenttest.Mbox(4)
		}
		for _, b := range w.AllBackups(t) { // it has only the first messages
			w.MustExpire(t, b)
		}
		must(t, w.Backups.DeleteLeftoverRows(t.Context(), tenant))
		var under sync.WaitGroup
		for _, c := range []contenttest.Contents{w.Contents, other} {
			under.Go(func() {
				if _, err := c.Compactor.Run(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		under.Go(func() {
			if err := w.Renewer.Renew(t.Context(), w.Mail, w.Renewal(store.NewID(), map[int64]error{})); err != nil {
				t.Error(err)
			}
		})
		under.Go(func() { w.MustCollect(t, time.Hour) })
		under.Wait()
		wantContent(t, w, mail, files)
		w.MustCollect(t, 0)
		w.MustCompact(t)
		w.MustCollect(t, 0)
		wantContent(t, w, mail, files)
		w.WantExact(t)
	})
}

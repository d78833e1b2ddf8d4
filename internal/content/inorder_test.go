package content_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/blob/s3test"
	"keyroll/internal/compact"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// countedIn returns how often objects were opened in a call, which must have closed them.
func countedIn(t testing.TB, opens *contenttest.Opens, call func()) int64 {
	t.Helper()
	before := opens.Count.Load()
	call()
	if n := opens.Unclosed.Load(); n != 0 {
		t.Errorf("%d readers were not closed", n)
	}
	return opens.Count.Load() - before
}

// wantChecked fails unless a check of the mailbox reports its items in their order, of which
// those with these numbers are damaged.
func wantChecked(t testing.TB, w *fixture, damaged ...int) {
	t.Helper()
	var n int
	var got []int
	var last int64
	must(t, w.Check(t.Context(), w.Mail, func(c content.Checked) error {
		if c.Item <= last {
			t.Errorf("item %d is reported after item %d", c.Item, last)
		}
		last = c.Item
		if c.Err != nil {
			got = append(got, n)
			if !fail.Is(c.Err, api.Damaged) {
				t.Errorf("item %d: %v", c.Item, c.Err)
			}
		}
		n++
		return nil
	}))
	if !slices.Equal(got, damaged) {
		t.Errorf("damaged are %v, want %v", got, damaged)
	}
}

// largeMbox returns messages that are larger than what is read from an object at a time.
func largeMbox(n int) (messages []string) {
	for i := range n {
		messages = append(messages, fmt.Sprintf("From a\nSubject: %d\n\n%s\n\n", i, strings.Repeat("x\n", 40_000+i)))
	}
	return messages
}

func TestEachObjectIsReadInFewRequests(t *testing.T) {
	const n = 1000
	test := func(t *testing.T, blobs func(w *fixture) blob.Store) {
		w := newFixture(t, storetest.One(t))
		w.Sizes = items.DefaultSizes
		w.Blobs = blobs(w)
		opens := w.CountOpens()
		w.MustImport(t, contenttest.Mbox(n))
		objects := int64(len(w.BlobNames(t)))
		if objects != 2 {
			t.Fatalf("%d objects", objects)
		}
		most := 2 * objects // a part of the mailbox ends in each
		if n := countedIn(t, opens, func() { wantChecked(t, w) }); n > most {
			t.Errorf("a check opened %d objects", n)
		}
		if n := countedIn(t, opens, func() {
			if w.MustExport(t) != contenttest.Mbox(n) {
				t.Error("the export is not what was imported")
			}
		}); n > most {
			t.Errorf("an export opened %d objects", n)
		}
		if n := countedIn(t, opens, func() { w.MustRenew(t, store.NewID(), w.Mail) }); n > most {
			t.Errorf("a renewal opened %d objects", n)
		}
		if w.MustExport(t) != contenttest.Mbox(n) {
			t.Error("after a renewal the export is not what was imported")
		}
		wantChecked(t, w)
	}
	t.Run("folder", func(t *testing.T) { test(t, func(w *fixture) blob.Store { return w.Blobs }) })
	t.Run("s3", func(t *testing.T) {
		test(t, func(*fixture) blob.Store {
			server := s3test.Start(t)
			server.Setenv(t)
			blobs, err := blob.Open(t.Context(), server.URL(server.Addr, "a"))
			must(t, err)
			t.Cleanup(func() { must(t, blobs.Close()) })
			return blobs
		})
	})
}

// Small files share an object in which there may be dead blobs.
func TestACheckOfFilesReadsEachObjectOnce(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.Sizes.Part = 100
		for i := range 12 {
			w.MustPut(t, fmt.Sprint("file", i), contenttest.RandomContent(i, 1000))
		}
		opens := w.CountOpens()
		w.MustCompact(t)
		w.MustPut(t, "file5", "new")
		w.MustCollect(t, 0)
		check := func() {
			must(t, w.Check(t.Context(), w.Site, func(c content.Checked) error { return c.Err }))
		}
		if n := countedIn(t, opens, check); n != 2 {
			t.Errorf("%d objects were opened, not that of the old files and that of the new one", n)
		}
	})
}

// Items are read in the order of the objects, and reported in their own.
func TestACheckReportsItemsInOrder(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.Sizes.Part = 8
		w.Reopen(t)
		w.MustImport(t, contenttest.Mbox(8))
		w.MustRenew(t, w.StoredBlobs(t)[2].ID, w.Mail) // the first two get another object
		opens := w.CountOpens()
		if n := countedIn(t, opens, func() { wantChecked(t, w) }); n != 3 {
			t.Errorf("%d objects were opened, not 3", n)
		}
		w.MustCompact(t) // into one object, in which the first two are the last
		if n := countedIn(t, opens, func() { wantChecked(t, w) }); n != 1 {
			t.Errorf("%d objects were opened, not 1", n)
		}
		w.StoredBlobs(t)[7].Lose(t) // the newest one
		wantChecked(t, w, 1)
	})
}

func TestDamageInAnObjectIsExact(t *testing.T) {
	for name, one := range map[string]struct {
		damage  func(t *testing.T, object []contenttest.Stored)
		damaged []int
	}{
		"a blob in the middle": {func(t *testing.T, b []contenttest.Stored) { b[1].Change(t, flip(20)) }, []int{5}},
		"two of them": {func(t *testing.T, b []contenttest.Stored) {
			b[0].Lose(t)
			b[2].Change(t, flip(40))
		}, []int{4, 6}},
		"cut in a blob":       {func(t *testing.T, b []contenttest.Stored) { must(t, os.Truncate(b[1].Path, b[1].At+100)) }, []int{5, 6, 7}},
		"cut between blobs":   {func(t *testing.T, b []contenttest.Stored) { must(t, os.Truncate(b[1].Path, b[2].At)) }, []int{6, 7}},
		"the object is empty": {func(t *testing.T, b []contenttest.Stored) { must(t, os.Truncate(b[1].Path, 0)) }, []int{4, 5, 6, 7}},
		"it is missing":       {func(t *testing.T, b []contenttest.Stored) { must(t, os.Remove(b[1].Path)) }, []int{4, 5, 6, 7}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFixture(t, storetest.One(t))
			messages := largeMbox(9)
			w.MustImport(t, strings.Join(messages, "")) // in objects of four, four and one
			blobs := w.StoredBlobs(t)
			one.damage(t, blobs[4:8])
			opens := w.CountOpens()
			countedIn(t, opens, func() { wantChecked(t, w, one.damaged...) })
			var want strings.Builder
			for i, m := range messages {
				if !slices.Contains(one.damaged, i) {
					want.WriteString(m)
				}
			}
			var got bytes.Buffer
			countedIn(t, opens, func() {
				err := w.Export(t.Context(), w.Mail, &got)
				wantCode(t, err, api.Damaged)
				first := fmt.Sprintf("blob %d", blobs[one.damaged[0]].ID)
				if !strings.Contains(err.Error(), fmt.Sprintf("%d messages are damaged", len(one.damaged))) || !strings.Contains(err.Error(), first) {
					t.Errorf("the error does not name %s: %v", first, err)
				}
			})
			if got.String() != want.String() {
				t.Errorf("exported %d bytes, not the %d of the other messages", got.Len(), want.Len())
			}
			skipped := map[int64]error{}
			countedIn(t, opens, func() { _, skipped = w.MustRenew(t, store.NewID(), w.Mail) })
			if len(skipped) != len(one.damaged) {
				t.Errorf("a renewal skipped %d of %d", len(skipped), len(one.damaged))
			}
			wantChecked(t, w, one.damaged...)
		})
	}
}

// A compaction deletes objects while they are read.
func TestObjectsAreMovedWhileTheyAreRead(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.Sizes.Part = 8
		messages := largeMbox(8)
		w.Older = true // each has an object of its own
		w.Reopen(t)
		w.MustImport(t, strings.Join(messages, ""))
		w.Older = false
		opens := w.CountOpens()
		w.MustRenew(t, store.NewID(), w.Mail) // they share one
		w.MustCollect(t, 0)
		if n := len(w.BlobNames(t)); n != 1 {
			t.Fatalf("%d objects", n)
		}
		compactor := compact.New(w.DB, w.Items, compact.Limits{Small: 1 << 20, AtLeast: 1, Blobs: 100})
		move := func() {
			done, err := compactor.Run(t.Context())
			must(t, err)
			if done.Blobs != 8 {
				t.Fatalf("%+v", done)
			}
			w.MustCollect(t, 0)
		}
		n := 0
		countedIn(t, opens, func() {
			must(t, w.Check(t.Context(), w.Mail, func(c content.Checked) error {
				if n++; n == 2 {
					move()
				}
				return c.Err
			}))
		})
		if n != 8 {
			t.Errorf("%d messages were checked", n)
		}
		var got bytes.Buffer
		moved := false
		countedIn(t, opens, func() {
			must(t, w.Export(t.Context(), w.Mail, writerFunc(func(p []byte) (int, error) {
				if !moved && got.Len() > 3*len(messages[0])/2 {
					moved = true
					move()
				}
				return got.Write(p)
			})))
		})
		if !moved || got.String() != strings.Join(messages, "") {
			t.Errorf("moved: %v; exported %d bytes, or others", moved, got.Len())
		}
	})
}

// A renewal leaves what is moved at the same time to another one.
func TestARenewalContinuesWhileObjectsAreMoved(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{}) // no renewal is run twice
		w := newFixture(t, db)
		mail := strings.Join(largeMbox(4), "")
		w.MustImport(t, mail)
		object := w.StoredBlobs(t)[0].ID // it has the id of its first blob
		opens := w.CountOpens()
		opens.AtFirstRead = func() {
			_, err := compact.New(w.DB, w.Items, compact.Limits{Small: 1 << 20, AtLeast: 1, Blobs: 100}).Run(t.Context())
			must(t, err)
			must(t, w.Items.DeleteStored(t.Context(), tenant, []int64{object})) // as a collection does
		}
		mark := store.NewID()
		_, skipped := w.MustRenew(t, mark, w.Mail)
		if n := w.CountOlder(t, mark); n == 0 || n == 4 || len(skipped) != 0 {
			t.Errorf("%d messages are left, %v were skipped", n, skipped)
		}
		if finished, _ := w.MustRenew(t, mark, w.Mail); finished != 1 || w.MustExport(t) != mail {
			t.Error("the next renewal did not end, or the mail reads otherwise")
		}
		w.WantExact(t)
	})
}

// A backup that is deleted while it is read has no damage.
func TestBlobsAreDeletedWhileTheyAreRead(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustImport(t, strings.Join(largeMbox(4), ""))
		b := w.MustBackup(t, w.Mail)
		w.MustRenew(t, store.NewID(), w.Mail) // from here on the old blobs are only the backup's
		opens := w.CountOpens()
		n := 0
		countedIn(t, opens, func() {
			err := w.Check(t.Context(), b.Container, func(c content.Checked) error {
				if n++; n == 1 {
					w.MustExpire(t, b)
					w.TidyUp(t)
					w.MustCollect(t, 0)
				}
				return c.Err
			})
			wantCode(t, err, api.NotFound) // the backup
		})
		if n != 1 {
			t.Errorf("%d messages were reported", n)
		}
		wantChecked(t, w)
	})
}

func TestAnExportThatEndsEarlyClosesTheObject(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	w.MustImport(t, contenttest.Mbox(4))
	opens := w.CountOpens()
	full, n := errors.New("the disk is full"), 0
	countedIn(t, opens, func() {
		err := w.Export(t.Context(), w.Mail, writerFunc(func(p []byte) (int, error) {
			if n++; n == 2 {
				return 0, full
			}
			return len(p), nil
		}))
		if !errors.Is(err, full) {
			t.Errorf("error %v", err)
		}
	})
	stopped := errors.New("stopped")
	countedIn(t, opens, func() {
		if err := w.Check(t.Context(), w.Mail, func(content.Checked) error { return stopped }); !errors.Is(err, stopped) {
			t.Errorf("error %v", err)
		}
	})
}

package content_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/mbox/mboxtest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func TestAnInterruptedPutLeavesTheOldOrTheNewFile(t *testing.T) {
	points := map[string]bool{ // and whether the new file is there after it
		"put.blob-durable": false, "put.before-commit": false, "put.after-commit": true,
	}
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{}) // fault points are counted
		w := newFixture(t, db)
		for point, isNew := range points {
			for n := 1; ; n++ {
				old, next := contenttest.RandomContent(n, 2*blobSize+1), contenttest.RandomContent(n+100, 3*blobSize)
				w.MustPut(t, "file", old)
				w.WantHealthy(t, false)
				dead := contenttest.DieAt(point, n, func() { w.MustPut(t, "file", next) })
				if !dead {
					if n == 1 {
						t.Errorf("%s was not reached", point)
					}
					break
				}
				w.Reopen(t)
				want := old
				if isNew {
					want = next
				}
				if w.MustGet(t, "file") != want {
					t.Errorf("died at %s, %d: not the file expected", point, n)
				}
				w.WantHealthy(t, false)
			}
		}
	})
}

func TestAnInterruptedImportKeepsWholeMessages(t *testing.T) {
	points := map[string]int{ // and the messages kept, counted in batches, beyond those before it
		"import.blobs-durable": 0, "import.before-commit": 0, "import.after-commit": 1,
	}
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{}) // fault points are counted
		w := newFixture(t, db)
		all := contenttest.Mbox(10) // in batches of 4
		messages := mboxtest.Split(all)
		for point, more := range points {
			for n := 1; ; n++ {
				w.Mail = w.MustCreate(t, w.Mail.Kind, fmt.Sprintf("m%d@contoso.com", store.NewID()))
				dead := contenttest.DieAt(point, n, func() {
					if _, err := w.Import(context.Background(), w.Mail, -1, strings.NewReader(all), content.ImportOptions{Name: "one"}); err != nil {
						t.Error(err)
					}
				})
				if !dead {
					if n != 4 {
						t.Errorf("%s was reached %d times, want 3", point, n-1)
					}
					break
				}
				w.Reopen(t)
				want := strings.Join(messages[:min(4*(n-1+more), len(messages))], "")
				if w.MustExport(t) != want {
					t.Errorf("died at %s, %d: the mailbox has something else", point, n)
				}
				w.WantHealthy(t, false)
				if point == "import.after-commit" && n == 3 {
					continue // it had finished
				}
				if _, err := importNamed(t, w, "one", strings.NewReader(all)); err != nil || w.MustExport(t) != all {
					t.Errorf("died at %s, %d, and continued: %v", point, n, err)
				}
			}
		}
	})
}

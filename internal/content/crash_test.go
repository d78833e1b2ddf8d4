package content_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"keyroll/internal/content"
	"keyroll/internal/fault"
	"keyroll/internal/mbox/mboxtest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// died is the panic value of a process that dies at a fault point.
type died struct{ point string }

// dieAt runs f, which dies when it reaches a fault point for the nth time, and
// reports whether it died.
func dieAt(point string, n int, f func()) (dead bool) {
	fault.Set(func(name string) {
		if name == point {
			if n--; n == 0 {
				panic(died{point})
			}
		}
	})
	defer fault.Set(nil)
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(died); !ok {
				panic(r)
			}
			dead = true
		}
	}()
	f()
	return false
}

func TestAnInterruptedPutLeavesTheOldOrTheNewFile(t *testing.T) {
	points := map[string]bool{ // and whether the new file is there after it
		"put.blob-durable": false, "put.before-commit": false, "put.after-commit": true,
	}
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{}) // fault points are counted
		w := newFixture(t, db)
		for point, isNew := range points {
			for n := 1; ; n++ {
				old, next := randomContent(n, 2*blobSize+1), randomContent(n+100, 3*blobSize)
				w.put(t, "file", old)
				w.wantHealthy(t, false)
				dead := dieAt(point, n, func() { w.put(t, "file", next) })
				if !dead {
					if n == 1 {
						t.Errorf("%s was not reached", point)
					}
					break
				}
				w.reopen(t)
				want := old
				if isNew {
					want = next
				}
				if w.get(t, "file") != want {
					t.Errorf("died at %s, %d: not the file expected", point, n)
				}
				w.wantHealthy(t, false)
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
		all := mbox(10) // in batches of 4
		messages := mboxtest.Split(all)
		for point, more := range points {
			for n := 1; ; n++ {
				w.mail = w.create(t, w.mail.Kind, fmt.Sprintf("m%d@contoso.com", store.NewID()))
				dead := dieAt(point, n, func() {
					if _, err := w.Import(context.Background(), w.mail, -1, strings.NewReader(all), content.ImportOptions{Name: "one"}); err != nil {
						t.Error(err)
					}
				})
				if !dead {
					if n != 4 {
						t.Errorf("%s was reached %d times, want 3", point, n-1)
					}
					break
				}
				w.reopen(t)
				want := strings.Join(messages[:min(4*(n-1+more), len(messages))], "")
				if w.export(t) != want {
					t.Errorf("died at %s, %d: the mailbox has something else", point, n)
				}
				w.wantHealthy(t, false)
				if point == "import.after-commit" && n == 3 {
					continue // it had finished
				}
				if _, err := w.importNamed(t, "one", strings.NewReader(all)); err != nil || w.export(t) != all {
					t.Errorf("died at %s, %d, and continued: %v", point, n, err)
				}
			}
		}
	})
}

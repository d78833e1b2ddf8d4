package items_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// slow is a blob store whose first put waits until others wait for it.
type slow struct {
	blob.Store
	once  sync.Once
	begun chan struct{}
	goOn  chan struct{}
}

func (s *slow) PutIfAbsent(ctx context.Context, name string, r io.Reader) (int64, error) {
	s.once.Do(func() { close(s.begun); <-s.goOn })
	return s.Store.PutIfAbsent(ctx, name, r)
}

// putTogether runs some puts while another one, of a file "first", is being stored.
func putTogether(t *testing.T, w *fixture, puts ...func() error) []error {
	t.Helper()
	s := &slow{Store: w.Blobs, begun: make(chan struct{}), goOn: make(chan struct{})}
	w.Contents = w.Connect(s)
	var all sync.WaitGroup
	all.Go(func() { w.MustPut(t, "first", "first") })
	<-s.begun
	errs := make([]error, len(puts))
	for i, put := range puts {
		all.Go(func() { errs[i] = put() })
	}
	w.Items.AwaitSmallPuts(len(puts))
	close(s.goOn)
	all.Wait()
	return errs
}

func TestFilesThatArePutTogetherShareAnObject(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		puts := make([]func() error, 10)
		want := map[string]string{"first": "first"}
		for i := range puts {
			path, text := fmt.Sprint("file ", i), strings.Repeat(fmt.Sprint(i), i)
			want[path] = text
			puts[i] = func() error { return errorOf(w.Put(t.Context(), w.Site, path, -1, strings.NewReader(text))) }
		}
		for i, err := range putTogether(t, w, puts...) {
			if err != nil {
				t.Errorf("put %d: %v", i, err)
			}
		}
		if n := len(w.BlobNames(t)); n != 2 {
			t.Errorf("%d objects, not that of the first file and one for the others", n)
		}
		for path, text := range want {
			if got := w.MustGet(t, path); got != text {
				t.Errorf("%s reads %q", path, got)
			}
		}
		w.WantExact(t)
		w.MustRenew(t, store.NewID(), w.Site)
		w.WantExact(t)
	})
}

// A put that fails after its blob is stored leaves the others in the object, whichever of
// them it is.
func TestAFailedPutLeavesOthersInItsObject(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		refused := fail.New(api.Conflict, "refused")
		puts := make([]func() error, 6)
		for i := range puts {
			puts[i] = func() error {
				return errorOf(w.Put(t.Context(), w.Site, fmt.Sprint("file ", i), -1, strings.NewReader("content"), func(*store.Tx) error {
					if i%2 == 0 {
						return refused
					}
					return nil
				}))
			}
		}
		for i, err := range putTogether(t, w, puts...) {
			if (err != nil) != (i%2 == 0) {
				t.Errorf("put %d ends with %v", i, err)
			}
		}
		w.MustCollect(t, 0)
		w.WantExact(t)
		for i := range puts {
			var got strings.Builder
			err := w.Get(t.Context(), w.Site, fmt.Sprint("file ", i), 0, -1, &got)
			if i%2 == 0 && !fail.Is(err, api.NotFound) || i%2 == 1 && got.String() != "content" {
				t.Errorf("file %d reads %q, %v", i, got.String(), err)
			}
		}
	})
}

// One of two blobs of an object has its row, and the row is removed, before the other one
// gets its own: no collection deletes the object, which by its row is all dead.
func TestACollectionLeavesAnObjectThatAPutWillReferTo(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{})
		w := newFixture(t, db)
		put := func(path string, before func()) func() error {
			return func() error {
				p, err := w.PrepareFile(t.Context(), w.Site, path, -1, strings.NewReader(path))
				if err != nil {
					return err
				}
				before()
				return w.DB.Commit(t.Context(), p, func(tx *store.Tx) error { return errorOf(p.Commit(t.Context(), tx)) })
			}
		}
		one := make(chan struct{})
		first := put("one", func() {})
		errs := putTogether(t, w, func() error {
			defer close(one)
			return first()
		}, put("two", func() {
			<-one
			w.MustPut(t, "one", "replaced")
			w.MustCollect(t, time.Hour)
			w.MustCollect(t, time.Hour) // the first one counts its blob as dead
		}))
		for i, err := range errs {
			if err != nil {
				t.Errorf("put %d: %v", i, err)
			}
		}
		if got := w.MustGet(t, "two"); got != "two" {
			t.Errorf("it reads %q", got)
		}
		w.WantExact(t)
	})
}

package content_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/store"
)

var errRefused = errors.New("refused by the test")

// loseNext loses the answer to the commit of the next transaction that calls armed.
func loseNext(w *fixture) (armed func() error) {
	lose := false
	w.DB.SetForTests(store.ForTests{RunTwice: true, LoseAnswer: func(context.Context) bool {
		lost := lose
		lose = false
		return lost
	}})
	return func() error { lose = true; return nil }
}

func wantAnswerLost(t *testing.T, w *fixture, err error) {
	t.Helper()
	if !store.IsAnswerLost(err) {
		t.Fatalf("error %v, want that of a lost answer", err)
	}
}

// A put, an import and a renewal whose commit succeeded although its answer was lost
// keep their blobs, and can be repeated.
func TestBlobsOfACommitWithoutAnAnswerAreKept(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		ctx, file := t.Context(), strings.Repeat("0123456789", 25_000) // three blobs
		w.MustPut(t, "a", "old")
		armed := loseNext(w)
		also := func(*store.Tx) error { return armed() }
		put := func(also func(*store.Tx) error) error {
			return errorOf(w.Put(ctx, w.Site, "a", -1, strings.NewReader(file), also))
		}
		wantAnswerLost(t, w, put(also))
		if w.MustGet(t, "a") != file {
			t.Error("the file that was put is not there")
		}
		w.WantHealthy(t, false)
		must(t, put(nil))

		mail := contenttest.Mbox(3)
		_, err := w.Import(ctx, w.Mail, -1, strings.NewReader(mail), content.ImportOptions{}, also)
		wantAnswerLost(t, w, err)
		if w.MustExport(t) != mail {
			t.Error("the messages that were imported are not there")
		}
		w.WantHealthy(t, false)

		mark, skipped := store.NewID(), map[int64]error{}
		for _, c := range []container.Container{w.Mail, w.Site} {
			r := w.Renewal(mark, skipped)
			r.Done = func(*store.Tx, int64) error { return armed() }
			wantAnswerLost(t, w, w.Renewer.Renew(ctx, c, r))
			if w.MustExport(t) != mail || w.MustGet(t, "a") != file {
				t.Errorf("the %s that was encrypted again is not what it was", c.Kind)
			}
			w.WantHealthy(t, false)
		}
		if n, skipped := w.MustRenew(t, mark, w.Mail, w.Site); n != 2 || len(skipped) > 0 || w.CountOlder(t, mark) > 0 {
			t.Errorf("asked again: %d containers, skipped %v", n, skipped)
		}
		w.TidyUp(t)
		w.MustCollect(t, 0)
		w.WantExact(t)
	})
}

// A failure before the commit leaves no blob, even in the second run of a transaction.
func TestBlobsOfATransactionThatFailedAreDeleted(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		ctx := t.Context()
		for fails := range 2 {
			runs := 0
			also := func(*store.Tx) error {
				if runs++; runs > fails {
					return errRefused
				}
				return nil
			}
			if err := errorOf(w.Put(ctx, w.Site, "a", -1, strings.NewReader("content"), also)); !errors.Is(err, errRefused) {
				t.Errorf("put: %v", err)
			}
			runs = 0
			if _, err := w.Import(ctx, w.Mail, -1, strings.NewReader(contenttest.Mbox(3)), content.ImportOptions{}, also); !errors.Is(err, errRefused) {
				t.Errorf("import: %v", err)
			}
			w.WantExact(t)
		}
		w.MustPut(t, "a", "content")
		runs, r := 0, w.Renewal(store.NewID(), map[int64]error{})
		r.Done = func(*store.Tx, int64) error {
			if runs++; runs > 1 {
				return errRefused
			}
			return nil
		}
		if err := w.Renewer.Renew(ctx, w.Site, r); !errors.Is(err, errRefused) {
			t.Errorf("renew: %v", err)
		}
		w.WantExact(t)
	})
}

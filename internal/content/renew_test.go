package content_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// renewal returns callbacks without limits, which record the skipped items.
func (w *fixture) renewal(mark int64, skipped map[int64]error) content.Renewal {
	return content.Renewal{Watermark: mark, LockRunning: func(*store.Tx) error { return nil }, Throttle: func(context.Context, int64) error { return nil },
		Done: func(*store.Tx, int64) error { return nil }, Skip: func(item int64, err error) { skipped[item] = err }}
}

// renew re-encrypts all content of containers and returns the number of containers
// that have no older blobs left.
func (w *fixture) renew(t testing.TB, mark int64, list ...container.Container) (n int64, skipped map[int64]error) {
	t.Helper()
	ctx, skipped := context.Background(), map[int64]error{}
	for _, c := range list {
		must(t, storetest.Ask(ctx, t, func(ctx context.Context) error { return w.Renew(ctx, c, w.renewal(mark, skipped)) }, nil))
	}
	n, err := w.FinishRenewed(ctx, list, mark, func(*store.Tx) error { return nil }, func(*store.Tx, int64) error { return nil })
	must(t, err)
	return n, skipped
}

// countOlder counts the blobs below an id.
func (w *fixture) countOlder(t testing.TB, mark int64) (n int64) {
	t.Helper()
	must(t, w.db.ViewOnce(context.Background(), func(tx *store.Tx) error {
		return tx.QueryRow(context.Background(), `SELECT COUNT(*) FROM blob WHERE id < ?1`, mark).Scan(&n)
	}))
	return n
}

func TestRenewReencryptsMailAndFiles(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		mail, file := mbox(30), strings.Repeat("0123456789", 45_000)
		w.importMail(t, mail)
		w.put(t, "a", file)
		w.put(t, "empty", "")
		mark := store.NewID()
		w.put(t, "newer", "new")
		newer := w.blobNames(t)[len(w.blobNames(t))-1]
		if n, skipped := w.renew(t, mark, w.mail, w.site); n != 2 || len(skipped) > 0 {
			t.Fatalf("%d containers, skipped %v", n, skipped)
		}
		if w.export(t) != mail || w.get(t, "a") != file || w.get(t, "empty") != "" || w.get(t, "newer") != "new" {
			t.Error("something reads otherwise than before")
		}
		if n := w.countOlder(t, mark); n > 0 {
			t.Errorf("%d blobs are older than the mark", n)
		}
		if !strings.Contains(strings.Join(w.blobNames(t), " "), newer) {
			t.Error("a blob that is newer than the mark was replaced")
		}
		w.wantHealthy(t, true)
		if n, _ := w.renew(t, mark, w.mail, w.site); n != 0 {
			t.Errorf("%d containers had something left", n)
		}
	})
}

func TestAReaderOfAReencryptedFileReadsItToItsEnd(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		file := strings.Repeat("0123456789", 45_000)
		w.put(t, "a", file)
		r, err := w.Open(t.Context(), w.site, "a")
		must(t, err)
		var got bytes.Buffer
		renewed := false
		must(t, r.WriteRange(t.Context(), 5, 400_000, writer(func(p []byte) (int, error) {
			if !renewed && got.Len() > blobSize {
				renewed = true
				w.renew(t, store.NewID(), w.site)
			}
			return got.Write(p)
		})))
		must(t, r.Close())
		if !renewed || got.String() != file[5:400_005] {
			t.Errorf("read %d bytes, or others", got.Len())
		}
		w.wantHealthy(t, true)
	})
}

type writer func(p []byte) (int, error)

func (f writer) Write(p []byte) (int, error) { return f(p) }

// hookReader calls f once, when half of the content has been read.
type hookReader struct {
	io.Reader
	left int
	f    func()
}

func (m *hookReader) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p[:min(len(p), 1000)])
	if m.left -= n; m.left < 0 && m.f != nil {
		m.f()
		m.f = nil
	}
	return n, err
}

func TestContentStoredDuringReencryptionHasTheNewKeys(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		var mark int64
		late := func(c container.Container) func() {
			return func() {
				mark = store.NewID()
				if n, _ := w.renew(t, mark, c); n != 1 {
					t.Fatalf("%d containers", n)
				}
			}
		}
		file, mail := strings.Repeat("0123456789", 45_000), mbox(3)
		_, err := w.Put(t.Context(), w.site, "a", -1, &hookReader{strings.NewReader(file), 250_000, late(w.site)})
		must(t, err)
		if n := w.countOlder(t, mark); n > 0 || w.get(t, "a") != file {
			t.Errorf("%d blobs of the file are older than the mark; it has %d bytes", n, len(w.get(t, "a")))
		}
		_, err = w.Import(t.Context(), w.mail, -1, &hookReader{strings.NewReader(mail), len(mail) - 100, late(w.mail)}, content.ImportOptions{})
		must(t, err)
		must(t, w.db.ViewOnce(t.Context(), func(tx *store.Tx) error {
			var n int64
			err := tx.QueryRow(t.Context(), `SELECT COUNT(*) FROM item i JOIN blob b ON b.item = i.id WHERE i.container = ?1 AND b.id < ?2`, w.mail.ID, mark).Scan(&n)
			if err == nil && n > 0 {
				t.Errorf("%d messages have older blobs than the mark", n)
			}
			return err
		}))
		if w.export(t) != mail {
			t.Error("the mail is another")
		}
		w.wantHealthy(t, true)
	})
}

func TestRenewSkipsContentThatCannotBeDecrypted(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.importMail(t, mbox(9))
		bad := w.storedBlobs(t)[4]
		w.exec(t, `UPDATE blob SET size = size + 1 WHERE id = ?1`, bad.id)
		mark := store.NewID()
		n, skipped := w.renew(t, mark, w.mail)
		if n != 0 || len(skipped) != 1 || skipped[bad.item] == nil {
			t.Errorf("%d containers are done; skipped %v", n, skipped)
		}
		if left := w.countOlder(t, mark); left != 1 {
			t.Errorf("%d blobs are older", left)
		}
		w.exec(t, `UPDATE blob SET size = size - 1 WHERE id = ?1`, bad.id) // repaired
		if n, skipped := w.renew(t, mark, w.mail); n != 1 || len(skipped) > 0 {
			t.Errorf("%d containers are done; skipped %v", n, skipped)
		}
		w.wantHealthy(t, true)
	})
}

func TestRenewDoesNotChangeTheBlobsOfBackups(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		mail := mbox(5)
		w.importMail(t, mail)
		var backup container.Container
		must(t, w.Backup(t.Context(), w.mail, time.Time{}, func(_ *store.Tx, b content.Backup) error { backup = b.Container; return nil }))
		w.renew(t, store.NewID(), w.mail)
		var got bytes.Buffer
		must(t, w.Export(t.Context(), backup, &got))
		if got.String() != mail || w.export(t) != mail {
			t.Error("the backup or the mailbox reads otherwise than before")
		}
		if n := len(w.blobNames(t)); n != 10 {
			t.Errorf("%d blobs are stored, want those of the backup and those of the mailbox", n)
		}
	})
}

func TestAStoppedRenewChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.importMail(t, mbox(5))
		before, enough := w.allTables(t), errors.New("it was stopped")
		r := w.renewal(store.NewID(), map[int64]error{})
		r.LockRunning = func(*store.Tx) error { return enough }
		if err := w.Renew(t.Context(), w.mail, r); !errors.Is(err, enough) {
			t.Errorf("error %v", err)
		}
		if w.allTables(t) != before {
			t.Error("something was changed")
		}
		w.wantHealthy(t, true) // its new blobs were deleted
	})
}

func TestRenewOnTwoNodesAtOnceSkipsNothing(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.importMail(t, mbox(3))
		w.put(t, "a", strings.Repeat("0123456789", 45_000))
		mark := store.NewID()
		for _, c := range []container.Container{w.mail, w.site} {
			skipped, other := map[int64]error{}, false
			r := w.renewal(mark, skipped)
			r.Throttle = func(context.Context, int64) error {
				if !other {
					other = true
					w.renew(t, mark, c)
				}
				return nil
			}
			must(t, w.Renew(t.Context(), c, r))
			if !other || len(skipped) > 0 {
				t.Errorf("container %d: skipped %v", c.ID, skipped)
			}
		}
		w.wantHealthy(t, true)
	})
}

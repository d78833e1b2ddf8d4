package renew_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"keyroll/internal/backup"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/store"
)

func TestRenewReencryptsMailAndFiles(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		mail, file := contenttest.Mbox(30), strings.Repeat("0123456789", 45_000)
		w.MustImport(t, mail)
		w.MustPut(t, "a", file)
		w.MustPut(t, "empty", "")
		mark := store.NewID()
		w.MustPut(t, "newer", "new")
		newer := w.BlobNames(t)[len(w.BlobNames(t))-1]
		if n, skipped := w.MustRenew(t, mark, w.Mail, w.Site); n != 2 || len(skipped) > 0 {
			t.Fatalf("%d containers, skipped %v", n, skipped)
		}
		if w.MustExport(t) != mail || w.MustGet(t, "a") != file || w.MustGet(t, "empty") != "" || w.MustGet(t, "newer") != "new" {
			t.Error("something reads otherwise than before")
		}
		if n := w.CountOlder(t, mark); n > 0 {
			t.Errorf("%d blobs are older than the mark", n)
		}
		if !strings.Contains(strings.Join(w.BlobNames(t), " "), newer) {
			t.Error("a blob that is newer than the mark was replaced")
		}
		w.WantHealthy(t, true)
		if n, _ := w.MustRenew(t, mark, w.Mail, w.Site); n != 0 {
			t.Errorf("%d containers had something left", n)
		}
	})
}

func TestAReaderOfAReencryptedFileReadsItToItsEnd(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		file := strings.Repeat("0123456789", 45_000)
		w.MustPut(t, "a", file)
		r, err := w.Open(t.Context(), w.Site, "a")
		must(t, err)
		var got bytes.Buffer
		renewed := false
		must(t, r.WriteRange(t.Context(), 5, 400_000, writer(func(p []byte) (int, error) {
			if !renewed && got.Len() > blobSize {
				renewed = true
				w.MustRenew(t, store.NewID(), w.Site)
			}
			return got.Write(p)
		})))
		must(t, r.Close())
		if !renewed || got.String() != file[5:400_005] {
			t.Errorf("read %d bytes, or others", got.Len())
		}
		w.WantHealthy(t, true)
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
				if n, _ := w.MustRenew(t, mark, c); n != 1 {
					t.Fatalf("%d containers", n)
				}
			}
		}
		file, mail := strings.Repeat("0123456789", 45_000), contenttest.Mbox(3)
		_, err := w.Put(t.Context(), w.Site, "a", -1, &hookReader{strings.NewReader(file), 250_000, late(w.Site)})
		must(t, err)
		if n := w.CountOlder(t, mark); n > 0 || w.MustGet(t, "a") != file {
			t.Errorf("%d blobs of the file are older than the mark; it has %d bytes", n, len(w.MustGet(t, "a")))
		}
		_, err = w.Import(t.Context(), w.Mail, -1, &hookReader{strings.NewReader(mail), len(mail) - 100, late(w.Mail)}, content.ImportOptions{})
		must(t, err)
		must(t, w.DB.ViewOnce(t.Context(), func(tx *store.Tx) error {
			var n int64
			err := tx.QueryRow(t.Context(), `SELECT COUNT(*) FROM item i JOIN blob b ON b.item = i.id WHERE i.container = ?1 AND b.id < ?2`, w.Mail.ID, mark).Scan(&n)
			if err == nil && n > 0 {
				t.Errorf("%d messages have older blobs than the mark", n)
			}
			return err
		}))
		if w.MustExport(t) != mail {
			t.Error("the mail is another")
		}
		w.WantHealthy(t, true)
	})
}

func TestRenewSkipsContentThatCannotBeDecrypted(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustImport(t, contenttest.Mbox(9))
		bad := w.StoredBlobs(t)[4]
		w.Exec(t, `UPDATE blob SET size = size + 1 WHERE id = ?1`, bad.ID)
		mark := store.NewID()
		n, skipped := w.MustRenew(t, mark, w.Mail)
		if n != 0 || len(skipped) != 1 || skipped[bad.Item] == nil {
			t.Errorf("%d containers are done; skipped %v", n, skipped)
		}
		if left := w.CountOlder(t, mark); left != 1 {
			t.Errorf("%d blobs are older", left)
		}
		w.Exec(t, `UPDATE blob SET size = size - 1 WHERE id = ?1`, bad.ID) // repaired
		if n, skipped := w.MustRenew(t, mark, w.Mail); n != 1 || len(skipped) > 0 {
			t.Errorf("%d containers are done; skipped %v", n, skipped)
		}
		w.WantHealthy(t, true)
	})
}

func TestRenewDoesNotChangeTheBlobsOfBackups(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		mail := contenttest.Mbox(5)
		w.MustImport(t, mail)
		var copied container.Container
		must(t, w.Backup(t.Context(), w.Mail, time.Time{}, func(_ *store.Tx, b backup.Backup) error { copied = b.Container; return nil }))
		w.MustRenew(t, store.NewID(), w.Mail)
		var got bytes.Buffer
		must(t, w.Export(t.Context(), copied, &got))
		if got.String() != mail || w.MustExport(t) != mail {
			t.Error("the backup or the mailbox reads otherwise than before")
		}
		if n := len(w.BlobNames(t)); n != 3 { // two batches, and a unit
			t.Errorf("%d objects are stored, want those of the backup and that of the mailbox", n)
		}
	})
}

func TestAStoppedRenewChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustImport(t, contenttest.Mbox(5))
		before, enough := w.AllTables(t), errors.New("it was stopped")
		r := w.Renewal(store.NewID(), map[int64]error{})
		r.LockRunning = func(*store.Tx) error { return enough }
		if err := w.Renewer.Renew(t.Context(), w.Mail, r); !errors.Is(err, enough) {
			t.Errorf("error %v", err)
		}
		if w.AllTables(t) != before {
			t.Error("something was changed")
		}
		w.WantHealthy(t, true) // its new blobs were deleted
	})
}

func TestRenewOnTwoNodesAtOnceSkipsNothing(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustImport(t, contenttest.Mbox(3))
		w.MustPut(t, "a", strings.Repeat("0123456789", 45_000))
		mark := store.NewID()
		for _, c := range []container.Container{w.Mail, w.Site} {
			skipped, other := map[int64]error{}, false
			r := w.Renewal(mark, skipped)
			r.Throttle = func(context.Context, int64) error {
				if !other {
					other = true
					w.MustRenew(t, mark, c)
				}
				return nil
			}
			must(t, w.Renewer.Renew(t.Context(), c, r))
			if !other || len(skipped) > 0 {
				t.Errorf("container %d: skipped %v", c.ID, skipped)
			}
		}
		w.WantHealthy(t, true)
	})
}

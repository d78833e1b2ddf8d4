package backup_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/backup"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/policy"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func TestARestoredMailboxEqualsItsBackupByteForByte(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustImport(t, contenttest.Mbox(11))
		before, list := w.MustExport(t), w.MustMessages(t)
		b := w.MustBackup(t, w.Mail)
		w.MustImport(t, contenttest.Mbox(3))
		blobs := len(w.BlobNames(t))

		c := w.MustRestore(t, b, "restored@contoso.com")
		if len(w.BlobNames(t)) != blobs {
			t.Errorf("%d blobs after the restore, %d before: they are to be shared", len(w.BlobNames(t)), blobs)
		}
		var out bytes.Buffer
		must(t, w.Export(context.Background(), c, &out))
		if out.String() != before {
			t.Error("the restored mailbox has another mbox")
		}
		got, err := w.Messages(context.Background(), c, 0, 100)
		must(t, err)
		for i := range got {
			got[i].ID = list[i].ID
		}
		if fmt.Sprint(got) != fmt.Sprint(list) {
			t.Errorf("its messages are %v, not %v", got, list)
		}
		w.WantExact(t)
	})
}

func TestABackupKeepsReplacedFilesUntilItExpires(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		old, next := contenttest.RandomContent(1, 2*blobSize+1), contenttest.RandomContent(2, blobSize)
		w.MustPut(t, "file", old)
		w.MustPut(t, "dir/same", "same")
		b := w.MustBackup(t, w.Site)
		w.MustPut(t, "file", next)
		w.MustPut(t, "new", "new")
		w.WantExact(t)
		c := w.MustRestore(t, b, "https://contoso.sharepoint.com/sites/restored")
		want := map[string]string{"file": old, "dir/same": "same"}
		for _, of := range []container.Container{b.Container, c} {
			if got := w.FilesOf(t, of); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s %q has other files than were backed up", of.Kind, of.Name)
			}
		}
		// The restored site is independent of the other one.
		must(t, errorOf(w.Put(context.Background(), c, "file", -1, strings.NewReader("mine"))))
		if w.MustGet(t, "file") != next || w.FilesOf(t, b.Container)["file"] != old {
			t.Error("a put into the restored site changed another one")
		}
		w.MustExpire(t, b)
		w.TidyUp(t)
		w.WantExact(t)
		if got := len(w.BlobNames(t)); got != 4 { // file, dir/same and new of the site; file of the restored one
			t.Errorf("%d blobs are left", got)
		}
		wantCode(t, w.Expire(context.Background(), b), api.NotFound)
	})
}

func TestAReaderOfAReplacedFileFinishesAlthoughItsBackupExpires(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		ctx, old := context.Background(), contenttest.RandomContent(1, 2*blobSize)
		w.MustPut(t, "file", old)
		b := w.MustBackup(t, w.Site)
		r, err := w.Open(ctx, w.Site, "file")
		must(t, err)
		w.MustPut(t, "file", "next")
		w.MustExpire(t, b)
		w.TidyUp(t)
		var out bytes.Buffer
		must(t, r.WriteRange(ctx, 0, -1, &out))
		if out.String() != old {
			t.Error("the reader has read something else")
		}
		must(t, r.Close())
		w.TidyUp(t)
		w.WantExact(t)
	})
}

// Puts replace two files in turn, a before b, while backups are made: each backup is
// from one moment, so b is never newer than a.
func TestABackupIsConsistentWhileFilesAreReplaced(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		const rounds = 30
		for i := range 9 { // so that the copy takes several parts
			w.MustPut(t, fmt.Sprint("between", i), "x")
		}
		w.MustPut(t, "a", "0")
		w.MustPut(t, "b", "0")
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for i := 1; i <= rounds; i++ {
				for _, path := range []string{"a", "b"} {
					if _, err := w.Put(context.Background(), w.Site, path, -1, strings.NewReader(fmt.Sprint(i))); err != nil {
						t.Error(err)
					}
				}
			}
		}()
		var backups []backup.Backup
		for range 4 {
			backups = append(backups, w.MustBackup(t, w.Site))
		}
		<-ended
		w.TidyUp(t)
		w.WantExact(t)
		for _, b := range backups {
			got := w.FilesOf(t, b.Container)
			var x, y int
			fmt.Sscan(got["a"], &x)
			fmt.Sscan(got["b"], &y)
			if len(got) != 11 || x < y || x > y+1 {
				t.Errorf("a backup has %d files, a of round %d and b of round %d", len(got), x, y)
			}
			w.MustExpire(t, b)
		}
		w.TidyUp(t)
		w.WantExact(t)
		if got := len(w.BlobNames(t)); got != 11 {
			t.Errorf("%d blobs are left of 11 files", got)
		}
	})
}

// While the first items are being copied, a later one is replaced, and the
// backup that is being restored expires.
func TestCollectionKeepsBlobsThatARunningCopyStillNeeds(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		for i := range 9 {
			w.MustPut(t, fmt.Sprint("file", i), "old")
		}
		during := func(act, copying func()) {
			t.Helper()
			met := 0
			fault.Set(func(name string) {
				if name != "copy.part-stored" {
					return
				}
				if met++; met == 1 {
					act()
					w.TidyUp(t)
				}
			})
			defer fault.Set(nil)
			copying()
			if met != 3 {
				t.Errorf("the copy took %d parts", met)
			}
			w.TidyUp(t)
			w.WantExact(t)
		}
		var b backup.Backup
		during(func() { w.MustPut(t, "file8", "new") }, func() { b = w.MustBackup(t, w.Site) })
		if got := w.FilesOf(t, b.Container)["file8"]; got != "old" || w.MustGet(t, "file8") != "new" {
			t.Errorf("the backup has %q", got)
		}
		w.MustPut(t, "file7", "new")
		during(func() { w.MustExpire(t, b) }, func() {
			_, err := w.Restore(context.Background(), b, "https://contoso.sharepoint.com/sites/restored", 0)
			wantCode(t, err, api.NotFound) // it has gone
		})
		if got := len(w.BlobNames(t)); got != 9 {
			t.Errorf("%d blobs are left of 9 files", got)
		}
	})
}

func TestAFailedBackupLeavesNoRows(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		ctx := context.Background()
		w.MustImport(t, contenttest.Mbox(9))
		w.MustPut(t, "file", "content")
		b := w.MustBackup(t, w.Site)
		before := w.AllTables(t)
		unchanged := func(what string) {
			t.Helper()
			w.TidyUp(t)
			w.WantExact(t)
			if w.AllTables(t) != before {
				t.Errorf("%s: something is left", what)
			}
		}

		refusal := fail.New(api.Internal, "the log is full")
		if err := w.Backup(ctx, w.Mail, time.Time{}, func(*store.Tx, backup.Backup) error { return refusal }); !fail.Is(err, api.Internal) {
			t.Errorf("error is %v", err)
		}
		unchanged("refused in its transaction")

		wantCode(t, errorOf(w.Restore(ctx, b, w.Site.Name, 0)), api.AlreadyExists)
		unchanged("the name is taken")

		// Access to the key is revoked while the items are being copied.
		w.RevokeAfter(1)
		wantCode(t, w.Backup(ctx, w.Mail, time.Time{}, func(*store.Tx, backup.Backup) error { return nil }), api.VaultDenied)
		w.Policies.Opening = nil
		unchanged("the key was withdrawn meanwhile")
	})
}

func TestABackupOfADamagedItemFailsAndNamesIt(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		ctx := context.Background()
		w.MustPut(t, "file", contenttest.RandomContent(1, 2*blobSize))
		must(t, w.DB.InTx(ctx, func(tx *store.Tx) error {
			return errorOf(tx.Exec(ctx, `DELETE FROM blob WHERE sequence = 1`))
		}))
		err := w.Backup(ctx, w.Site, time.Time{}, func(*store.Tx, backup.Backup) error { return nil })
		wantCode(t, err, api.Damaged)
		if !strings.Contains(err.Error(), "item") {
			t.Errorf("the item is not named: %v", err)
		}
	})
}

func TestAnInterruptedBackupIsCompleteOrAbsent(t *testing.T) {
	storetest.KeepAnswers(t)
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newFixture(t, db)
		w.MustImport(t, contenttest.Mbox(9)) // three parts
		want := w.MustExport(t)
		n := 0
		acts := map[string]func(){
			"backup":  func() { w.MustBackup(t, w.Mail) },
			"restore": func() { n++; w.MustRestore(t, w.AllBackups(t)[0], fmt.Sprintf("r%d@contoso.com", n)) },
			"expire":  func() { w.MustExpire(t, w.AllBackups(t)[0]); w.TidyUp(t) },
		}
		points := map[string][]string{
			"backup":  {"copy.begun", "copy.part-stored", "create.before-commit", "create.after-commit"},
			"restore": {"copy.begun", "copy.part-stored", "create.before-commit", "create.after-commit"},
			"expire":  {"expire.before-commit", "expire.after-commit", "clear.part-removed"},
		}
		for name, act := range acts {
			for _, point := range points[name] {
				for k := 1; ; k++ {
					w.MustBackup(t, w.Mail)
					dead := contenttest.DieAt(point, k, act)
					if !dead && k == 1 {
						t.Errorf("%s: %s was not reached", name, point)
					}
					w.Reopen(t)
					w.TidyUp(t)
					w.WantExact(t)
					for _, b := range w.AllBackups(t) {
						var out bytes.Buffer
						must(t, w.Export(context.Background(), b.Container, &out))
						if out.String() != want {
							t.Errorf("%s died at %s, %d: a backup has something else", name, point, k)
						}
						w.MustExpire(t, b)
					}
					w.TidyUp(t)
					if !dead {
						break
					}
				}
			}
		}
	})
}

func TestBackupsExpireAtTheirTime(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		ctx, at := context.Background(), time.UnixMilli(2_000_000_000_000)
		w.MustBackup(t, w.Mail)
		var due backup.Backup
		must(t, w.Backup(ctx, w.Mail, at, func(_ *store.Tx, b backup.Backup) error { due = b; return nil }))
		for _, c := range []struct {
			at   time.Time
			want int
		}{{at.Add(-time.Millisecond), 0}, {at, 1}, {at.Add(time.Hour), 1}} {
			must(t, w.DB.ViewOnce(ctx, func(tx *store.Tx) error {
				list, err := w.Backups.Due(ctx, tx, tenant, c.at, 10)
				if len(list) != c.want || c.want == 1 && (list[0].ID != due.ID || !list[0].Expires.Equal(at) || list[0].Name != w.Mail.Name) {
					t.Errorf("at %v due are %+v", c.at, list)
				}
				return err
			}))
		}
	})
}

// If a policy is refreshed while a backup of one of its containers is made or restored,
// the backup succeeds and its key is put under the new policy key.
func TestBackupsAndRestoresDuringARefresh(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustPut(t, "a", "content")
		w.MustImport(t, contenttest.Mbox(3))
		var refreshes int // how often the policy key will have changed when a transaction looks
		w.Policies.Locking = func(now *policy.KeyRow) {
			if refreshes > 0 {
				refreshes--
				now.Generation++
			}
		}
		for of, name := range map[*container.Container]string{&w.Site: "https://contoso.sharepoint.com/sites/b", &w.Mail: "bob@contoso.com"} {
			refreshes = 3
			b := w.MustBackup(t, *of)
			if refreshes != 0 {
				t.Errorf("backup: %d refreshes did not come between", refreshes)
			}
			refreshes = 3
			restored := w.MustRestore(t, b, name)
			if refreshes != 0 {
				t.Errorf("restore: %d refreshes did not come between", refreshes)
			}
			for _, c := range []container.Container{b.Container, restored} {
				must(t, w.Check(t.Context(), c, func(r content.Checked) error { return r.Err }))
			}
		}
		w.WantExact(t)
	})
}

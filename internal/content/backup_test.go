package content_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func (w *fixture) backup(t testing.TB, c container.Container) (b content.Backup) {
	t.Helper()
	must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) error {
		return w.Backup(ctx, c, time.Time{}, func(_ *store.Tx, made content.Backup) error {
			b = made
			return nil
		})
	}, func() bool {
		must(t, w.DeleteLeftoverRows(context.Background(), tenant)) // deletes the rows of a copy that failed
		return w.hasBackup(t, b)
	}))
	return b
}

func (w *fixture) hasBackup(t testing.TB, b content.Backup) bool {
	t.Helper()
	err := w.db.ViewOnce(context.Background(), func(tx *store.Tx) error {
		_, err := w.BackupByID(context.Background(), tx, tenant, b.ID)
		return err
	})
	if err != nil && !fail.Is(err, api.NotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func (w *fixture) restore(t testing.TB, b content.Backup, name string) container.Container {
	t.Helper()
	var c container.Container
	must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) (err error) {
		c, err = w.Restore(ctx, b, name, 0)
		return err
	}, func() bool {
		must(t, w.DeleteLeftoverRows(context.Background(), tenant))
		return w.exists(&c, b.Of, name)
	}))
	return c
}

func (w *fixture) expire(t testing.TB, b content.Backup) {
	t.Helper()
	must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) error {
		return w.Expire(ctx, b)
	}, func() bool { return !w.hasBackup(t, b) }))
}

func (w *fixture) tidyUp(t testing.TB) {
	t.Helper()
	must(t, storetest.Ask(context.Background(), t, func(ctx context.Context) error { return w.DeleteLeftoverRows(ctx, tenant) }, nil))
	w.collect(t, time.Hour) // no orphans, but what was dropped
}

// filesOf reads every file of a container, also one of kind backup.
func (w *fixture) filesOf(t testing.TB, c container.Container) map[string]string {
	t.Helper()
	list, err := w.Files(context.Background(), c)
	must(t, err)
	all := map[string]string{}
	for _, f := range list {
		var b bytes.Buffer
		must(t, w.Get(context.Background(), c, f.Path, 0, -1, &b))
		all[f.Path] = b.String()
	}
	return all
}

// wantExact fails unless every item of every container can be read, and no row or blob is
// missing or left over.
func (w *fixture) wantExact(t testing.TB) {
	t.Helper()
	ctx := context.Background()
	var all []container.Container
	must(t, w.db.ViewOnce(ctx, func(tx *store.Tx) (err error) {
		all, err = w.containers.All(ctx, tx, tenant, 0, 10_000)
		return err
	}))
	for _, c := range all {
		must(t, w.Check(ctx, c, func(r content.Checked) error { return r.Err }))
	}
	w.wantExactRows(t)
}

// wantExactRows fails unless the key pages and the blob store contain exactly what rows
// reference, and the container of every row exists.
func (w *fixture) wantExactRows(t testing.TB) {
	t.Helper()
	w.collect(t, time.Hour)
	ctx := context.Background()
	var named []string
	must(t, w.db.ViewOnce(ctx, func(tx *store.Tx) (err error) {
		for what, query := range map[string]string{
			"items of no container": `SELECT COUNT(*) FROM item WHERE container NOT IN (SELECT id FROM container)`,
			"key pages beside those that blobs point to": fmt.Sprintf(`SELECT COUNT(*) FROM key_page k WHERE class = %d
				AND count <> (SELECT COUNT(*) FROM blob b JOIN item i ON i.id = b.item WHERE b.page = k.id AND i.container = k.parent)`, envelope.ClassBlob),
			"blobs that wait to go":    `SELECT COUNT(*) FROM dropped`,
			"containers half way":      `SELECT COUNT(*) FROM unfinished`,
			"backups of no container":  `SELECT COUNT(*) FROM backup WHERE id NOT IN (SELECT id FROM container)`,
			"containers of no page":    `SELECT COUNT(*) FROM container WHERE page NOT IN (SELECT id FROM key_page)`,
			"key pages of no blob key": fmt.Sprintf(`SELECT COUNT(*) FROM key_page WHERE class = %d AND parent NOT IN (SELECT id FROM container)`, envelope.ClassBlob),
		} {
			var n int
			if err := tx.QueryRow(ctx, query).Scan(&n); err != nil {
				return err
			}
			if n != 0 {
				t.Errorf("%s: %d", what, n)
			}
		}
		rows, err := tx.Query(ctx, `SELECT DISTINCT id FROM blob`)
		if err != nil {
			return err
		}
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			named = append(named, fmt.Sprintf("%016x", id))
		}
		return rows.Err()
	}))
	stored := map[string]bool{}
	for _, name := range w.blobNames(t) {
		stored[name[strings.LastIndex(name, "/")+1:]] = true
	}
	for _, name := range named {
		if !stored[name] {
			t.Errorf("blob %s is missing", name)
		}
	}
	if len(stored) != len(named) {
		t.Errorf("%d blobs in the database, %d in the blob store", len(named), len(stored))
	}
}

func TestARestoredMailboxEqualsItsBackupByteForByte(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.importMail(t, mbox(11))
		before, list := w.export(t), w.messages(t)
		b := w.backup(t, w.mail)
		w.importMail(t, mbox(3))
		blobs := len(w.blobNames(t))

		c := w.restore(t, b, "restored@contoso.com")
		if len(w.blobNames(t)) != blobs {
			t.Errorf("%d blobs after the restore, %d before: they are to be shared", len(w.blobNames(t)), blobs)
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
		w.wantExact(t)
	})
}

func TestABackupKeepsReplacedFilesUntilItExpires(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		old, next := randomContent(1, 2*blobSize+1), randomContent(2, blobSize)
		w.put(t, "file", old)
		w.put(t, "dir/same", "same")
		b := w.backup(t, w.site)
		w.put(t, "file", next)
		w.put(t, "new", "new")
		w.wantExact(t)
		c := w.restore(t, b, "https://contoso.sharepoint.com/sites/restored")
		want := map[string]string{"file": old, "dir/same": "same"}
		for _, of := range []container.Container{b.Container, c} {
			if got := w.filesOf(t, of); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s %q has other files than were backed up", of.Kind, of.Name)
			}
		}
		// The restored site is independent of the other one.
		must(t, e(w.Put(context.Background(), c, "file", -1, strings.NewReader("mine"))))
		if w.get(t, "file") != next || w.filesOf(t, b.Container)["file"] != old {
			t.Error("a put into the restored site changed another one")
		}
		w.expire(t, b)
		w.tidyUp(t)
		w.wantExact(t)
		if got := len(w.blobNames(t)); got != 4 { // file, dir/same and new of the site; file of the restored one
			t.Errorf("%d blobs are left", got)
		}
		wantCode(t, w.Expire(context.Background(), b), api.NotFound)
	})
}

func e[T any](_ T, err error) error { return err }

func TestAReaderOfAReplacedFileFinishesAlthoughItsBackupExpires(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		ctx, old := context.Background(), randomContent(1, 2*blobSize)
		w.put(t, "file", old)
		b := w.backup(t, w.site)
		r, err := w.Open(ctx, w.site, "file")
		must(t, err)
		w.put(t, "file", "next")
		w.expire(t, b)
		w.tidyUp(t)
		var out bytes.Buffer
		must(t, r.WriteRange(ctx, 0, -1, &out))
		if out.String() != old {
			t.Error("the reader has read something else")
		}
		must(t, r.Close())
		w.tidyUp(t)
		w.wantExact(t)
	})
}

// Puts replace two files in turn, a before b, while backups are made: each backup is
// from one moment, so b is never newer than a.
func TestABackupIsConsistentWhileFilesAreReplaced(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		const rounds = 30
		for i := range 9 { // so that the copy takes several parts
			w.put(t, fmt.Sprint("between", i), "x")
		}
		w.put(t, "a", "0")
		w.put(t, "b", "0")
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for i := 1; i <= rounds; i++ {
				for _, path := range []string{"a", "b"} {
					if _, err := w.Put(context.Background(), w.site, path, -1, strings.NewReader(fmt.Sprint(i))); err != nil {
						t.Error(err)
					}
				}
			}
		}()
		var backups []content.Backup
		for range 4 {
			backups = append(backups, w.backup(t, w.site))
		}
		<-ended
		w.tidyUp(t)
		w.wantExact(t)
		for _, b := range backups {
			got := w.filesOf(t, b.Container)
			var x, y int
			fmt.Sscan(got["a"], &x)
			fmt.Sscan(got["b"], &y)
			if len(got) != 11 || x < y || x > y+1 {
				t.Errorf("a backup has %d files, a of round %d and b of round %d", len(got), x, y)
			}
			w.expire(t, b)
		}
		w.tidyUp(t)
		w.wantExact(t)
		if got := len(w.blobNames(t)); got != 11 {
			t.Errorf("%d blobs are left of 11 files", got)
		}
	})
}

// While the first items are being copied, a later one is replaced, and the
// backup that is being restored expires.
func TestCollectionKeepsBlobsThatARunningCopyStillNeeds(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		for i := range 9 {
			w.put(t, fmt.Sprint("file", i), "old")
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
					w.tidyUp(t)
				}
			})
			defer fault.Set(nil)
			copying()
			if met != 3 {
				t.Errorf("the copy took %d parts", met)
			}
			w.tidyUp(t)
			w.wantExact(t)
		}
		var b content.Backup
		during(func() { w.put(t, "file8", "new") }, func() { b = w.backup(t, w.site) })
		if got := w.filesOf(t, b.Container)["file8"]; got != "old" || w.get(t, "file8") != "new" {
			t.Errorf("the backup has %q", got)
		}
		w.put(t, "file7", "new")
		during(func() { w.expire(t, b) }, func() {
			_, err := w.Restore(context.Background(), b, "https://contoso.sharepoint.com/sites/restored", 0)
			wantCode(t, err, api.NotFound) // it has gone
		})
		if got := len(w.blobNames(t)); got != 9 {
			t.Errorf("%d blobs are left of 9 files", got)
		}
	})
}

func TestAFailedBackupLeavesNoRows(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		ctx := context.Background()
		w.importMail(t, mbox(9))
		w.put(t, "file", "content")
		b := w.backup(t, w.site)
		before := w.allTables(t)
		unchanged := func(what string) {
			t.Helper()
			w.tidyUp(t)
			w.wantExact(t)
			if w.allTables(t) != before {
				t.Errorf("%s: something is left", what)
			}
		}

		refusal := fail.New(api.Internal, "the log is full")
		if err := w.Backup(ctx, w.mail, time.Time{}, func(*store.Tx, content.Backup) error { return refusal }); !fail.Is(err, api.Internal) {
			t.Errorf("error is %v", err)
		}
		unchanged("refused in its transaction")

		wantCode(t, e(w.Restore(ctx, b, w.site.Name, 0)), api.AlreadyExists)
		unchanged("the name is taken")

		// Access to the key is revoked while the items are being copied.
		w.revokeAfter(1)
		wantCode(t, w.Backup(ctx, w.mail, time.Time{}, func(*store.Tx, content.Backup) error { return nil }), api.VaultDenied)
		w.policies.Opening = nil
		unchanged("the key was withdrawn meanwhile")
	})
}

func TestABackupOfADamagedItemFailsAndNamesIt(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		ctx := context.Background()
		w.put(t, "file", randomContent(1, 2*blobSize))
		must(t, w.db.InTx(ctx, func(tx *store.Tx) error {
			return e(tx.Exec(ctx, `DELETE FROM blob WHERE sequence = 1`))
		}))
		err := w.Backup(ctx, w.site, time.Time{}, func(*store.Tx, content.Backup) error { return nil })
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
		w.importMail(t, mbox(9)) // three parts
		want := w.export(t)
		n := 0
		acts := map[string]func(){
			"backup":  func() { w.backup(t, w.mail) },
			"restore": func() { n++; w.restore(t, w.allBackups(t)[0], fmt.Sprintf("r%d@contoso.com", n)) },
			"expire":  func() { w.expire(t, w.allBackups(t)[0]); w.tidyUp(t) },
		}
		points := map[string][]string{
			"backup":  {"copy.begun", "copy.part-stored", "create.before-commit", "create.after-commit"},
			"restore": {"copy.begun", "copy.part-stored", "create.before-commit", "create.after-commit"},
			"expire":  {"expire.before-commit", "expire.after-commit", "clear.part-removed"},
		}
		for name, act := range acts {
			for _, point := range points[name] {
				for k := 1; ; k++ {
					w.backup(t, w.mail)
					dead := dieAt(point, k, act)
					if !dead && k == 1 {
						t.Errorf("%s: %s was not reached", name, point)
					}
					w.reopen(t)
					w.tidyUp(t)
					w.wantExact(t)
					for _, b := range w.allBackups(t) {
						var out bytes.Buffer
						must(t, w.Export(context.Background(), b.Container, &out))
						if out.String() != want {
							t.Errorf("%s died at %s, %d: a backup has something else", name, point, k)
						}
						w.expire(t, b)
					}
					w.tidyUp(t)
					if !dead {
						break
					}
				}
			}
		}
	})
}

// allBackups is every backup.
func (w *fixture) allBackups(t testing.TB) (list []content.Backup) {
	t.Helper()
	must(t, w.db.ViewOnce(context.Background(), func(tx *store.Tx) (err error) {
		listed, err := w.Backups(context.Background(), tx, tenant, 0, 1000)
		list = nil
		for _, b := range listed {
			list = append(list, b.Backup)
		}
		return err
	}))
	return list
}

func TestBackupsExpireAtTheirTime(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		ctx, at := context.Background(), time.UnixMilli(2_000_000_000_000)
		w.backup(t, w.mail)
		var due content.Backup
		must(t, w.Backup(ctx, w.mail, at, func(_ *store.Tx, b content.Backup) error { due = b; return nil }))
		for _, c := range []struct {
			at   time.Time
			want int
		}{{at.Add(-time.Millisecond), 0}, {at, 1}, {at.Add(time.Hour), 1}} {
			must(t, w.db.ViewOnce(ctx, func(tx *store.Tx) error {
				list, err := w.Due(ctx, tx, tenant, c.at, 10)
				if len(list) != c.want || c.want == 1 && (list[0].ID != due.ID || !list[0].Expires.Equal(at) || list[0].Name != w.mail.Name) {
					t.Errorf("at %v due are %+v", c.at, list)
				}
				return err
			}))
		}
	})
}

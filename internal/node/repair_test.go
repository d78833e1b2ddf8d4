package node_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

const letter = "From a@b Thu Jan  1 00:00:00 2026\nSubject: x\n\nhello\n\n"

// A disk without room refuses what has to be written, and says so. What the audit
// log cannot tell is not done either, so where the database's disk is full nobody
// reads; where it is that of the blobs, everybody does. Once there is room, the same
// requests work, without a restart.
func TestAFullDiskIsNamedAndHeals(t *testing.T) {
	for name, options := range map[string]func(disk, other string) node.Options{
		"of the blobs": func(disk, other string) node.Options {
			return node.Options{Data: other, Blobs: "file://" + filepath.Join(disk, "blobs")}
		},
		"of the database": func(disk, other string) node.Options {
			return node.Options{Data: filepath.Join(disk, "data"), Blobs: "file://" + other}
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := smallDisk(t)
			o := options(disk, nodetest.Folder(t))
			o.Logger = slog.New(slog.DiscardHandler)
			w := nodetest.Start(t, o)
			w.StageMail()
			w.Mailbox(alice, nodetest.MailboxPolicy)
			w.Import(alice, letter)
			w.Site(site)
			w.Put(site, "a", []byte("a"))

			ballast := filepath.Join(disk, "ballast")
			fillUp(t, ballast)
			put := func(path string, size int) error {
				in := api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: path}
				return ignore(w.Client.PutFile(t.Context(), in, int64(size), bytes.NewReader(make([]byte, size))))
			}
			refused(t, "put", put("b", 1<<20), api.InsufficientStorage)
			refused(t, "import", importMail(t.Context(), w, alice, strings.Repeat(letter, 20_000)), api.InsufficientStorage)
			in := api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: "a"}
			if got, err := getFile(t.Context(), w, in); name == "of the database" {
				refused(t, "get", err, api.InsufficientStorage, "database")
			} else if err != nil || string(got) != "a" {
				t.Errorf("get: %q, %v", got, err)
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			if err := put("b", 1<<20); err != nil {
				t.Error(err)
			}
			if string(w.Get(site, "a")) != "a" || w.Export(alice) != letter {
				t.Error("what was there does not read back")
			}
			w.RefreshMail()
			w.FinishRoll(nodetest.MailboxPolicy)
			w.VerifyClean()
		})
	}
}

// smallDisk mounts a small file system until the test ends.
func smallDisk(t *testing.T) (folder string) {
	t.Helper()
	folder = t.TempDir()
	if err := syscall.Mount("keyroll", folder, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatalf("this test mounts a small file system and has to be root for that: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, 0); err != nil {
			t.Error(err)
		}
	})
	return folder
}

// fillUp writes a file until there is no room.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// A blob that is gone, or of which a bit is another, is named; everything else
// reads and rolls; putting the blob back, or the file anew, repairs it.
func TestALostOrFlippedBlobIsNamedAndPutBack(t *testing.T) {
	w := nodetest.Start(t, node.Options{Data: nodetest.Folder(t)})
	w.StageSites()
	w.Site(site)
	w.Put(site, "a", []byte("content of a"))
	blobs := files(t, filepath.Join(w.Data, "blobs"))
	w.Put(site, "b", []byte("content of b"))
	if len(blobs) != 1 {
		t.Fatalf("blobs %q", blobs)
	}
	path := blobs[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for name, injure := range map[string]func() error{
		"lost":    func() error { return os.Remove(path) },
		"flipped": func() error { return os.WriteFile(path, flipped, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := injure(); err != nil {
				t.Fatal(err)
			}
			in := api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: "a"}
			refused(t, "get", ignore(getFile(t.Context(), w, in)), api.Damaged, "blob ")
			if string(w.Get(site, "b")) != "content of b" {
				t.Error("b is another")
			}
			if v := w.Verify(); len(v.Damaged) != 1 || v.Damaged[0].Kind != "item" || !strings.Contains(v.Damaged[0].Detail, "blob ") {
				t.Errorf("verify found %+v", v.Damaged)
			}
			w.UpdateSites()
			w.FinishRoll(nodetest.SitePolicy)
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			if string(w.Get(site, "a")) != "content of a" {
				t.Error("a is another")
			}
			w.VerifyClean()
		})
	}
}

// files returns all files below a folder.
func files(t *testing.T, folder string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// A key page that does not open takes its mailboxes with it and nothing else. A
// roll brings all others over and names the page. A backup has keys of its own:
// what it holds is restored under new keys; then nothing needs the page any more.
func TestMailboxesOnADamagedKeyPageAreRestoredFromTheirBackups(t *testing.T) {
	w := &ward{World: nodetest.Start(t, node.Options{PageSlots: 2}), t: t}
	w.StageMail()
	w.CreateMany(container.Mailbox, []string{alice, bob, carol}, nodetest.MailboxPolicy) // alice and bob on one page
	for _, name := range []string{alice, bob, carol} {
		w.Import(name, letter+strings.ReplaceAll(letter, "hello", name))
	}
	want := w.Export(alice)
	w.Backup("mailbox", alice)
	w.exec(`UPDATE key_page SET body = ?1 WHERE id = (SELECT page FROM container WHERE `+alicesBox+`)`, []byte("not a page"))
	w.cold()
	refused(t, "export", ignore(exportMail(t.Context(), w.World, alice)), api.Damaged, "key page")
	refused(t, "export", ignore(exportMail(t.Context(), w.World, bob)), api.Damaged, "key page")
	if !strings.Contains(w.Export(carol), carol) {
		t.Error("carol does not read")
	}
	w.RefreshMail()
	r := w.WaitRoll(nodetest.MailboxPolicy)
	if r.Remaining != 2 || !strings.Contains(r.Message, "key page") {
		t.Errorf("the roll: %+v", r)
	}
	w.Restore("mailbox", alice, "alice2@contoso.com")
	if got := w.Export("alice2@contoso.com"); got != want {
		t.Errorf("restored %q", got)
	}
}

package node_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
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

// With a full disk, writes are refused with a clear error. Nothing is done without its
// audit entry, so reads fail too if the database's disk is full; if only the disk of
// the blobs is full, reads work. Once there is space, the same requests work, without a
// restart.
func TestAFullDiskIsReportedAndTheNodeRecovers(t *testing.T) {
	if !mayMount(t) {
		return
	}
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
			refused(t, "import", importMail(t.Context(), w, alice, strings.Repeat(letter, 20_000)), api.InsufficientStorage)
			refused(t, "put", untilRefused(func(i int) error { return put(fmt.Sprint("b", i), 1<<20) }), api.InsufficientStorage)
			get := func(int) error {
				got, err := getFile(t.Context(), w, api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: "a"})
				if err == nil && string(got) != "a" {
					t.Errorf("get: %q", got)
				}
				return err
			}
			if name == "of the database" {
				refused(t, "get", untilRefused(get), api.InsufficientStorage, "database")
			} else if err := get(0); err != nil {
				t.Error(err)
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			if err := put("b", 1<<20); err != nil {
				t.Error(err)
			}
			if mail := w.Export(alice); string(w.Get(site, "a")) != "a" || mail == "" || mail != strings.Repeat(letter, len(mail)/len(letter)) {
				t.Error("what was there, and came whole, does not read back")
			}
			w.RefreshMail()
			w.FinishRoll(nodetest.MailboxPolicy)
			w.VerifyClean()
		})
	}
}

// untilRefused repeats an act and returns its first error: a database file on a full disk
// still has free pages for small writes.
func untilRefused(act func(i int) error) (err error) {
	for i := 0; err == nil && i < 10_000; i++ {
		err = act(i)
	}
	return err
}

// mounting is the environment variable that says that the process may mount.
const mounting = "KEYROLL_TEST_MAY_MOUNT"

// mayMount reports whether a test may mount file systems. If not, it runs the test again
// in a process that may, in its own mount namespace, and reports that result; the
// caller then returns.
func mayMount(t *testing.T) bool {
	t.Helper()
	if os.Getenv(mounting) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mounting+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a mount namespace: %v\n%s", err, out)
	}
	return false
}

// smallDisk mounts a small file system until the test ends.
func smallDisk(t *testing.T) (folder string) {
	t.Helper()
	folder = t.TempDir()
	if err := syscall.Mount("keyroll", folder, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, 0); err != nil {
			t.Error(err)
		}
	})
	return folder
}

// fillUp writes a file until the disk is full.
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

// A missing or altered blob is reported; everything else can be read and rolled;
// restoring the blob, or storing the file again, repairs it.
func TestALostOrAlteredBlobIsReportedAndCanBeRestored(t *testing.T) {
	t.Parallel()
	w := nodetest.Start(t, node.Options{Data: nodetest.Folder(t)})
	w.StageSites()
	w.Site(site)
	w.Put(site, "a", []byte("content of a"))
	blobs := allBlobs(t, w.Data)
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

// A blob that is truncated or altered after its first segment is reported too, although
// bytes of the file have been sent by then.
func TestABlobDamagedAfterItsFirstSegmentIsReported(t *testing.T) {
	t.Parallel()
	w := nodetest.Start(t, node.Options{Data: nodetest.Folder(t)})
	w.StageSites()
	w.Site(site)
	w.Put(site, "a", bytes.Repeat([]byte("0123456789"), 950_000)) // two blobs
	w.Mailbox(alice, "")
	w.Import(alice, "From a Thu Jan  1 00:00:00 2026\nSubject: large\n\n"+strings.Repeat("line\n", 80_000))
	blobs := allBlobs(t, w.Data)
	if len(blobs) != 3 {
		t.Fatalf("blobs %q", blobs)
	}
	in := api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: "a"}
	reads := map[string]func() error{
		"get":       func() error { return ignore(getFile(t.Context(), w, in)) },
		"get range": func() error { return ignore(readAll(w.Client.GetFile(t.Context(), in, 100, 9_499_890))) },
		"export":    func() error { return ignore(exportMail(t.Context(), w, alice)) },
	}
	for i, path := range blobs {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		altered := bytes.Clone(whole)
		altered[len(altered)-100] ^= 1
		of := "export"
		if i < 2 {
			of = "get"
		}
		for name, content := range map[string][]byte{"cut": whole[:len(whole)-100], "cut after its first segment": whole[:300_000], "longer": append(bytes.Clone(whole), 0), "altered": altered} {
			if of == "export" && name == "altered" {
				continue // part of the message has left, and mail knows no ranges
			}
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			for read, act := range reads {
				if err := act(); strings.HasPrefix(read, of) {
					refused(t, fmt.Sprintf("blob %d, %s: %s", i, name, read), err, api.Damaged, "blob ")
				} else if err != nil {
					t.Errorf("blob %d, %s: %s: %v", i, name, read, err)
				}
			}
		}
		if v := w.Verify(); len(v.Damaged) != 1 || !strings.Contains(v.Damaged[0].Detail, "blob ") {
			t.Errorf("verify found %+v", v.Damaged)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.VerifyClean()
}

// A key page that cannot be decrypted affects only its mailboxes. A roll moves all
// others and reports the page, and the ledger still counts it. A backup has its own
// keys: once the mailbox is abandoned, the backup is restored under its name with a new
// key. With its last mailbox the page is deleted, the roll finishes, and the older key
// version is needed only for the backup.
func TestMailboxesOnADamagedKeyPageAreRestoredFromTheirBackups(t *testing.T) {
	t.Parallel()
	w := &damagedNode{World: nodetest.Start(t, node.Options{PageSlots: 2}), t: t}
	w.StageMail()
	w.CreateMany(container.Mailbox, []string{alice, bob, carol}, nodetest.MailboxPolicy) // alice and bob on one page
	for _, name := range []string{alice, bob, carol} {
		w.Import(name, letter+strings.ReplaceAll(letter, "hello", name))
	}
	want := w.Export(alice)
	w.Backup("mailbox", alice)
	w.exec(`UPDATE key_page SET body = ?1 WHERE id = (SELECT page FROM container WHERE `+alicesBox+`)`, []byte("not a page"))
	w.clearKeyCaches()
	refused(t, "export", ignore(exportMail(t.Context(), w.World, alice)), api.Damaged, "key page")
	refused(t, "export", ignore(exportMail(t.Context(), w.World, bob)), api.Damaged, "key page")
	refused(t, "abandon carol", w.abandon("mailbox", carol), api.Conflict, "can be decrypted")

	usage, err := w.Client.ListKeyUsage(t.Context(), api.KeyUsageInput{Vault: nodetest.VaultA1})
	w.requireNoError(err)
	older := usage.Items[0].Version
	w.RefreshMail()
	r := w.WaitRoll(nodetest.MailboxPolicy)
	if r.State != api.RollFailed || r.Remaining != 2 || r.SkippedCount != 1 || !strings.HasPrefix(r.Skipped[0], "key page") {
		t.Errorf("the roll: %+v", r)
	}
	if !strings.Contains(w.Export(carol), carol) {
		t.Error("carol does not read")
	}
	if active, backups := w.needed(older); active != 2 || backups != 1 {
		t.Errorf("the older key version is needed for %d mailboxes and %d backups, want the two of the damaged page and the one", active, backups)
	}

	w.requireNoError(w.abandon("mailbox", alice))
	w.Restore("mailbox", alice, alice)
	if got := w.Export(alice); got != want {
		t.Errorf("restored %q", got)
	}
	w.requireNoError(w.abandon("mailbox", bob))
	w.requireNoError(ignore(w.Client.ResumeRoll(t.Context(), api.RollInput{Roll: r.ID})))
	if r := w.FinishRoll(nodetest.MailboxPolicy); r.SkippedCount != 0 {
		t.Errorf("finished: %+v", r)
	}
	if active, backups := w.needed(older); active != 0 || backups != 1 {
		t.Errorf("the older key version is needed for %d mailboxes and %d backups, want the backup alone", active, backups)
	}
	w.VerifyClean()
}

func (w *damagedNode) abandon(kind, name string) error {
	var in api.AbandonInput
	in.Body.Kind, in.Body.Container = kind, name
	return ignore(w.Client.AbandonContainer(w.t.Context(), in))
}

// needed returns what needs a version of the mailbox policy's first key.
func (w *damagedNode) needed(version string) (active, backups int64) {
	list, err := w.Client.ListKeyUsage(w.t.Context(), api.KeyUsageInput{Vault: nodetest.VaultA1})
	w.requireNoError(err)
	for _, line := range list.Items {
		if line.Version == version {
			return line.Active, line.Backups
		}
	}
	w.t.Fatalf("no version %s in %+v", version, list.Items)
	return 0, 0
}

package node_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store/storetest"
)

// unpack makes a data folder of an archive in testdata, with the modes of its
// files.
func unpack(t *testing.T, name string) (data string) {
	t.Helper()
	data = filepath.Join(t.TempDir(), "data")
	file, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	for archive := tar.NewReader(plain); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return data
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(data, filepath.FromSlash(header.Name))
		mode := header.FileInfo().Mode().Perm()
		if header.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, mode)
		} else {
			var content []byte
			if content, err = io.ReadAll(archive); err == nil {
				err = os.WriteFile(path, content, mode)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What a keyroll of schema version 15 left, a roll in the middle, a backup and a
// second tenant in it, is served by this one: all reads as it went in, the roll
// goes on, and what is new works on what is old. The same after a move.
//
// The archive is the data folder of that keyroll: 12 mailboxes, user2 inactive,
// of which a paused roll has brought 2 of 11 over; user1, user2, a site and a
// workload store hold the same two messages; user1 has a backup.
func TestDataOfAnEarlierKeyrollIsServed(t *testing.T) {
	const mail = "From alice@contoso.com Thu Jan  1 00:00:00 2026\nSubject: hello\n\nbody\n\n" +
		"From alice@contoso.com Thu Jan  1 00:00:01 2026\nSubject: again\n\nmore\n"
	const site = "https://contoso.sharepoint.com/sites/legal"
	t.Run("sqlite", func(t *testing.T) { serveEarlier(t, mail, site, "") })
	t.Run("postgres", func(t *testing.T) { serveEarlier(t, mail, site, storetest.EmptyPostgresURL(t)) })
}

func serveEarlier(t *testing.T, mail, site, database string) {
	o := node.Options{Data: unpack(t, "schema15.tar.gz"), PageSlots: 4, Database: database}
	if database != "" {
		if _, err := node.MoveDatabase(t.Context(), o.Data, database, func(string, int64, int64) {}); err != nil {
			t.Fatal(err)
		}
	}
	w := nodetest.Start(t, o)
	w.VerifyClean()
	reads := func() {
		t.Helper()
		for _, name := range []string{"user1@contoso.com", "user2@contoso.com"} {
			if got := w.Export(name); got != mail {
				t.Errorf("%s: %q", name, got)
			}
		}
		if got := w.Get(site, "docs/mail.mbox"); !bytes.Equal(got, []byte(mail)) {
			t.Errorf("site: %q", got)
		}
		if got := w.GetItem("chat-messages", "note"); !bytes.Equal(got, []byte(mail)) {
			t.Errorf("workload: %q", got)
		}
	}
	reads()
	r := w.WaitRoll(nodetest.MailboxPolicy)
	if r.State != api.RollPaused || r.Total != 11 || r.Remaining != 9 {
		t.Errorf("the roll is %+v", r)
	}
	if _, err := w.Client.ResumeRoll(t.Context(), api.RollInput{Roll: r.ID}); err != nil {
		t.Fatal(err)
	}
	w.FinishRoll(nodetest.MailboxPolicy)
	w.Mailbox("new@contoso.com", nodetest.MailboxPolicy)
	w.Import("new@contoso.com", mail)
	w.Script("Add-AzKeyVaultKey -VaultName va1 -Name k -Destination Software")
	w.Refresh(nodetest.MailboxPolicy, api.DepthPolicy)
	w.FinishRoll(nodetest.MailboxPolicy)
	tenants, err := w.Client.ListTenants(t.Context(), api.ListInput{})
	if err != nil || len(tenants.Items) != 2 {
		t.Errorf("%d tenants, %v", len(tenants.Items), err)
	}
	w.Restart(nil)
	reads()
	w.VerifyClean()
}

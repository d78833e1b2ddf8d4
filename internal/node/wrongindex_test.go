package node_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// With every index of an SQLite database damaged, keyroll starts, all content can be
// read, nothing is created a second time or deleted, and verify reports each table.
func TestContentStaysReadableWithEveryIndexWrong(t *testing.T) {
	w := nodetest.Start(t, node.Options{Data: nodetest.Folder(t)})
	w.StageMail()
	w.Mailbox(alice, nodetest.MailboxPolicy)
	w.Import(alice, letter)
	w.StageSites()
	w.Site(site)
	w.Put(site, "a", []byte("old"))
	w.Put(site, "a", []byte("new"))
	w.Backup("site", site)
	tables := []string{"setting", "secret", "tenant", "principal", "policy", "revision", "container", "item", "blob", "dropped", "vault", "vault_key"}
	count := func(w *nodetest.World) (counts string) {
		for _, table := range tables {
			var n int64
			err := w.Node.DB.ViewOnce(t.Context(), func(tx *store.Tx) error {
				return tx.QueryRow(t.Context(), `SELECT count(*) FROM `+table+` AS t`).Scan(&n)
			})
			if err != nil {
				t.Error(err)
			}
			counts += fmt.Sprintln(table, n)
		}
		return counts
	}
	before := count(w)
	w.Stop()
	wrecked := func(t *testing.T, wreck func(path string)) (*nodetest.World, func() error) {
		data := nodetest.Folder(t)
		nodetest.CopyFolder(t, w.Data, data)
		wreck(filepath.Join(data, "keyroll.db"))
		w := nodetest.Start(t, node.Options{Data: data})
		return w, func() error {
			got, err := getFile(t.Context(), w, api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: "a"})
			if err == nil && string(got) != "new" {
				t.Errorf("the file is %q", got)
			}
			return err
		}
	}
	for name, wreck := range map[string]func(t testing.TB, path string){
		"zeros":            func(t testing.TB, path string) { storetest.ZeroIndexes(t, path, "audit_entry_tenant") },
		"before any write": storetest.ForgetIndexes,
	} {
		t.Run(name, func(t *testing.T) {
			w, read := wrecked(t, func(path string) { wreck(t, path) })
			if err := read(); err != nil {
				t.Error(err)
			}
			if mail, err := exportMail(t.Context(), w, alice); err != nil || !strings.Contains(mail, "hello") {
				t.Errorf("mail %q: %v", mail, err)
			}
			if after := count(w); after != before {
				t.Errorf("rows before:\n%s\nafter:\n%s", before, after)
			}
			found := fmt.Sprint(w.Verify().Damaged)
			for _, table := range tables[:len(tables)-1] {
				if table != "dropped" && !strings.Contains(found, "table "+table+" ") && !strings.Contains(found, "table "+table+":") {
					t.Errorf("verify does not name table %s: %s", table, found)
				}
			}
		})
	} // What is read is noted in the audit log first. No row can be added to a table
	// with such an index.
	t.Run("zeros in the audit log's index", func(t *testing.T) {
		w, read := wrecked(t, func(path string) { storetest.ZeroIndexes(t, path) })
		refused(t, "get", read(), api.Damaged, "an index of the database is wrong")
		if after := count(w); after != before {
			t.Errorf("rows before:\n%s\nafter:\n%s", before, after)
		}
	})
}

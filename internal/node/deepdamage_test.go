package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
)

// A roll of depth content skips a lost blob and a damaged page of blob keys: it reports
// both, moves everything else, and finishes once both are repaired.
func TestADeepRollSkipsDamageAndContinuesAfterItsRepair(t *testing.T) {
	w := &damagedNode{World: nodetest.Start(t, node.Options{Data: nodetest.Folder(t)}), t: t}
	w.StageMail()
	boxes := []string{alice, bob, carol}
	w.CreateMany(container.Mailbox, boxes, nodetest.MailboxPolicy)
	want := map[string]string{}
	for _, name := range boxes {
		want[name] = letter + strings.ReplaceAll(letter, "hello", name)
		w.Import(name, want[name])
	}
	w.Node.Upkeep.Wait()
	// of returns a number of the first blob of the n-th mailbox.
	of := func(n int, column string) int64 {
		return ask(t, w.Node.DB, func(tx *store.Tx) (id int64, err error) {
			return id, tx.QueryRow(t.Context(), `SELECT `+column+` FROM blob WHERE item = (SELECT MIN(id) FROM item WHERE container =
				(SELECT id FROM container WHERE kind = 'mailbox' ORDER BY id LIMIT 1 OFFSET `+fmt.Sprint(n)+`))`).Scan(&id)
		})
	}
	lost, item, page := of(0, "id"), of(0, "item"), of(1, "page")
	var path string
	for _, p := range allBlobs(t, w.Data) {
		if filepath.Base(p) == fmt.Sprintf("%016x", lost) {
			path = p
		}
	}
	w.requireNoError(os.Rename(path, path+".kept"))
	w.exec(fmt.Sprintf(`UPDATE key_page SET version = version + 7 WHERE id = %d`, page))

	w.Refresh(nodetest.MailboxPolicy, api.DepthContent)
	r := w.WaitRoll(nodetest.MailboxPolicy)
	skips := func(what string) bool {
		return slices.ContainsFunc(r.Skipped, func(s string) bool { return strings.HasPrefix(s, what+": ") })
	}
	if r.State != api.RollFailed || !skips(fmt.Sprintf("item %d", item)) || !skips(fmt.Sprintf("key page %d", page)) {
		t.Errorf("the roll: %+v", r)
	}
	for i, name := range boxes {
		got, err := exportMail(t.Context(), w.World, name)
		if whole := name == carol; whole != (err == nil && string(got) == want[name]) {
			t.Errorf("%s reads %q, %v", name, got, err)
		}
		if kept := of(i, "id") <= lost; name == carol && kept {
			t.Errorf("the content of %s was not re-encrypted", name)
		}
	}

	w.requireNoError(os.Rename(path+".kept", path))
	w.exec(fmt.Sprintf(`UPDATE key_page SET version = version - 7 WHERE id = %d`, page))
	w.requireNoError(ignore(w.Client.ResumeRoll(t.Context(), api.RollInput{Roll: r.ID})))
	if r := w.FinishRoll(nodetest.MailboxPolicy); r.SkippedCount != 0 || r.Remaining != 0 {
		t.Errorf("after the repair: %+v", r)
	}
	for _, name := range boxes {
		if got := w.Export(name); got != want[name] {
			t.Errorf("%s reads %q", name, got)
		}
	}
	w.VerifyClean()
}

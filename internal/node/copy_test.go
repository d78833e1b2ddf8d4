package node_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

// A copy of the database from before the damage restores a key page: only its row, if
// it was not rolled since; with the revisions of its former policy key, if it was
// rolled and their wraps have been erased. verify reports the older row until the next
// roll has moved it.
func TestARowFromACopyOfTheDatabaseRepairsAKeyPage(t *testing.T) {
	t.Parallel()
	for name, rolled := range map[string]bool{"not rolled since": false, "rolled since": true} {
		t.Run(name, func(t *testing.T) {
			w := &damagedNode{World: nodetest.Start(t, node.Options{Data: nodetest.Folder(t)}), t: t}
			w.StageMail()
			w.CreateMany(container.Mailbox, []string{alice, bob}, nodetest.MailboxPolicy) // on one key page
			w.Import(alice, letter)
			w.Import(bob, letter+letter)
			file, kept := filepath.Join(w.Data, "keyroll.db"), filepath.Join(t.TempDir(), "copy.db")
			operate := func(statements ...string) {
				t.Helper()
				w.Stop()
				db, err := sql.Open("sqlite3", "file:"+file)
				w.requireNoError(err)
				db.SetMaxOpenConns(1)
				for _, s := range statements {
					_, err := db.ExecContext(t.Context(), s)
					w.requireNoError(err)
				}
				w.requireNoError(db.Close())
				w.Restart(nil)
			}
			operate(`VACUUM INTO '` + kept + `'`)
			if rolled {
				w.RefreshMail()
				w.FinishRoll(nodetest.MailboxPolicy)
				w.Node.Upkeep.Wait()
			}
			operate(`UPDATE key_page SET body = zeroblob(length(body)) WHERE id = (SELECT page FROM container WHERE ` + alicesBox + `)`)
			refused(t, "export", ignore(exportMail(t.Context(), w.World, alice)), api.Damaged, "key page")

			const page = `(SELECT page FROM container WHERE ` + alicesBox + `)`
			operate(`ATTACH '`+kept+`' AS copy`,
				`REPLACE INTO key_page SELECT * FROM copy.key_page WHERE id = `+page,
				`REPLACE INTO policy_key SELECT * FROM copy.policy_key WHERE id = (SELECT parent FROM key_page WHERE id = `+page+`)`,
				`REPLACE INTO revision SELECT * FROM copy.revision WHERE policy_key = (SELECT parent FROM key_page WHERE id = `+page+`)`)
			if w.Export(alice) != letter || w.Export(bob) != letter+letter {
				t.Error("what was there does not read back")
			}
			if v := w.Verify(); !rolled && len(v.Damaged) > 0 || rolled && (len(v.Damaged) != 1 || !strings.Contains(v.Damaged[0].Detail, "an older row was put back")) {
				t.Errorf("verify: %+v", v.Damaged)
			}
			w.RefreshMail()
			if r := w.FinishRoll(nodetest.MailboxPolicy); r.Done != 2 {
				t.Errorf("the next roll moved %d of 2", r.Done)
			}
			w.VerifyClean()
		})
	}
}

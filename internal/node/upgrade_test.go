package node_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/fault"
	"keyroll/internal/lease"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// earlier is the version of the first schema that supported several nodes.
const earlier = 15

const (
	earlierMail = "From alice@contoso.com Thu Jan  1 00:00:00 2026\nSubject: hello\n\nbody\n\n" +
		"From alice@contoso.com Thu Jan  1 00:00:01 2026\nSubject: again\n\nmore\n"
	earlierSite = "https://contoso.sharepoint.com/sites/legal"
)

// The data of a keyroll with an earlier schema, including an unfinished roll, a backup
// and a second tenant, is served by this one: all content is read as it was stored, the
// roll continues, and new operations work on old data. The same after a move.
func TestDataOfAnEarlierVersionIsServed(t *testing.T) {
	// Not parallel: fault points are those of the whole process.
	left, half := makeEarlierData(t)
	t.Run("sqlite", func(t *testing.T) { serveEarlier(t, left, half, "") })
	t.Run("postgres", func(t *testing.T) { serveEarlier(t, left, half, storetest.EmptyPostgresURL(t)) })
}

// makeEarlierData returns a data folder at schema version earlier: 12 mailboxes, user2
// inactive, and a paused roll that has moved one page of the 11 active ones; user1,
// user2, a site and a workload store have the same two messages; user1 has a backup.
func makeEarlierData(t *testing.T) (data string, half api.Roll) {
	w := nodetest.Start(t, node.Options{Data: nodetest.Folder(t), PageSlots: 4, RollRate: 10_000}) // a batch is one page then
	fence := joinEarlier(t, w.Node.DB)
	w.StageMail()
	for i := range 12 {
		w.Mailbox(fmt.Sprintf("user%d@contoso.com", i+1), nodetest.MailboxPolicy)
	}
	w.Import("user1@contoso.com", earlierMail)
	w.Import("user2@contoso.com", earlierMail)
	w.SetState("user2@contoso.com", api.Inactive)
	w.Site(earlierSite)
	w.Put(earlierSite, "docs/mail.mbox", []byte(earlierMail))
	w.PutItem("chat-messages", "note", []byte(earlierMail))
	w.Backup("mailbox", "user1@contoso.com")
	other := tenantOf(t, w, "fabrikam")
	defer other.Client.Close()

	moved, paused := make(chan struct{}), make(chan struct{})
	goOn := sync.OnceFunc(func() { close(paused) })
	defer goOn()
	fault.Set(func(point string) {
		if point == "roll.after-commit" {
			fault.Set(nil)
			close(moved)
			<-paused
		}
	})
	defer fault.Set(nil)
	w.RefreshMail()
	<-moved
	p, err := w.Client.ShowPolicy(t.Context(), api.PolicyInput{Policy: nodetest.MailboxPolicy})
	if err == nil {
		half, err = w.Client.PauseRoll(t.Context(), api.RollInput{Roll: p.Roll.ID})
	}
	goOn()
	if err != nil {
		t.Fatal(err)
	}
	leaveEarlier(t, w.Node.DB, fence)
	w.Stop()
	if half.Total != 11 || half.Remaining == 0 || half.Remaining == half.Total {
		t.Fatalf("the roll is not half way: %+v", half)
	}
	revertSchema(t, filepath.Join(w.Data, node.DatabaseFile))
	return w.Data, half
}

// joinEarlier makes a node of an earlier version live: beside it, content is stored as that
// version stores it.
func joinEarlier(t *testing.T, db *store.DB) (fence int64) {
	err := db.InTx(t.Context(), func(tx *store.Tx) (err error) {
		if _, err := tx.Exec(t.Context(), `INSERT INTO node (name, url, session, since, own) VALUES ('earlier', '', '', 0, '')`); err != nil {
			return err
		}
		fence, _, err = lease.Take(t.Context(), tx, lease.OfNode("earlier"), "earlier", time.Hour)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fence
}

// leaveEarlier undoes joinEarlier.
func leaveEarlier(t *testing.T, db *store.DB, fence int64) {
	err := db.InTx(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.Exec(t.Context(), `DELETE FROM node WHERE name = 'earlier'`); err != nil {
			return err
		}
		return lease.Release(t.Context(), tx, lease.OfNode("earlier"), "earlier", fence)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Statements of schema files, and their inverse. Files after version earlier have no
// others that change a table (TestNewSchemaFilesOnlyAdd).
var back = []struct {
	made *regexp.Regexp
	back string
}{
	{regexp.MustCompile(`CREATE TABLE (\w+)`), "DROP TABLE $1"},
	{regexp.MustCompile(`CREATE (?:UNIQUE )?INDEX (\w+)`), "DROP INDEX $1"},
	{regexp.MustCompile(`ALTER TABLE (\w+) ADD COLUMN (\w+)`), "ALTER TABLE $1 DROP COLUMN $2"},
}

var comment = regexp.MustCompile(`--[^\n]*`)

// revertSchema reverts an SQLite database to version earlier of the schema. If it missed
// anything, the next start would create that a second time and fail.
func revertSchema(t *testing.T, path string) {
	db := storetest.Open(t, "sqlite://"+path)
	files, err := filepath.Glob("../store/schema/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	var statements []string // the last one is taken back first
	for _, file := range files {
		if version, err := strconv.Atoi(filepath.Base(file)[:5]); err != nil || version <= earlier {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for statement := range strings.SplitSeq(comment.ReplaceAllString(string(text), ""), ";") {
			for _, b := range back {
				if at := b.made.FindStringSubmatchIndex(statement); at != nil {
					statements = append([]string{string(b.made.ExpandString(nil, b.back, statement, at))}, statements...)
				}
			}
		}
	}
	statements = append(statements, fmt.Sprintf("DELETE FROM schema_version WHERE version_id > %d", earlier))
	err = db.InTx(t.Context(), func(tx *store.Tx) error {
		for _, statement := range statements {
			if _, err := tx.Exec(t.Context(), statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return nil
	})
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func serveEarlier(t *testing.T, left string, half api.Roll, database string) {
	o := node.Options{Data: nodetest.Folder(t), PageSlots: 4, Database: database}
	nodetest.CopyFolder(t, left, o.Data)
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
			if got := w.Export(name); got != earlierMail {
				t.Errorf("%s: %q", name, got)
			}
		}
		if got := w.Get(earlierSite, "docs/mail.mbox"); !bytes.Equal(got, []byte(earlierMail)) {
			t.Errorf("site: %q", got)
		}
		if got := w.GetItem("chat-messages", "note"); !bytes.Equal(got, []byte(earlierMail)) {
			t.Errorf("workload: %q", got)
		}
	}
	reads()
	r := w.WaitRoll(nodetest.MailboxPolicy)
	if r.ID != half.ID || r.State != api.RollPaused || r.Total != half.Total || r.Remaining != half.Remaining {
		t.Errorf("the roll is %+v, it was left as %+v", r, half)
	}
	if _, err := w.Client.ResumeRoll(t.Context(), api.RollInput{Roll: r.ID}); err != nil {
		t.Fatal(err)
	}
	w.FinishRoll(nodetest.MailboxPolicy)
	w.Mailbox("new@contoso.com", nodetest.MailboxPolicy)
	w.Import("new@contoso.com", earlierMail)
	w.RefreshMail()
	w.FinishRoll(nodetest.MailboxPolicy)
	tenants, err := w.Client.ListTenants(t.Context(), api.ListInput{})
	if err != nil || len(tenants.Items) != 2 {
		t.Errorf("%d tenants, %v", len(tenants.Items), err)
	}
	w.Node.Upkeep.Wait()
	var uncounted int64
	err = w.Node.DB.View(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT COUNT(*) FROM container c WHERE NOT EXISTS (SELECT 1 FROM item_total t WHERE t.container = c.id)`).Scan(&uncounted)
	})
	if err != nil || uncounted != 0 {
		t.Errorf("the totals of %d containers are not kept, %v", uncounted, err)
	}
	w.Restart(nil)
	reads()
	w.VerifyClean()
}

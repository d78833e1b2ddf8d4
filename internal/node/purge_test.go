package node_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
)

// An attacker has everything that was on keyroll's disk before the purge and after it:
// database, blobs, seal. Each case says what it does not have. It can write anything
// to the database: it removes the purge and its marks, and puts the policy into
// recovery mode, in which the availability key serves everything.
func TestAfterAPurgeCopiesOfTheDiskCannotBeDecryptedWithoutTheCustomersKeys(t *testing.T) {
	t.Parallel()
	const alice, idle = "alice@contoso.com", "idle@contoso.com"
	const secret = "From a@contoso.com Thu Jan  1 00:00:00 2026\nSubject: hello\n\nbody\n"
	w := nodetest.Start(t, node.Options{Data: nodetest.Folder(t)})
	w.StageMail()
	for _, name := range []string{alice, idle} {
		w.Mailbox(name, nodetest.MailboxPolicy)
		w.Import(name, secret)
	}
	w.SetState(idle, api.Inactive)
	w.Node.Upkeep.Wait()
	w.RefreshMail()
	w.FinishRoll(nodetest.MailboxPolicy)
	w.Stop()
	before, after := filepath.Join(t.TempDir(), "before"), filepath.Join(t.TempDir(), "after")
	nodetest.CopyFolder(t, w.Data, before)

	w.Restart(nil)
	w.RevokeMail()
	w.RequestPurge(nodetest.MailboxPolicy)
	w.ApprovePurge(w.Approver("dana"), nodetest.MailboxPolicy)
	w.ApprovePurge(w.Approver("erin"), nodetest.MailboxPolicy)
	w.WaitPurges()
	p, err := w.Client.ShowPurge(t.Context(), api.PolicyInput{Policy: nodetest.MailboxPolicy})
	if err != nil || p.State != api.Purged || len(p.Destroy) != 4 {
		t.Fatalf("the purge: %+v, %v", p, err)
	}
	w.Stop()
	nodetest.CopyFolder(t, w.Data, after)

	for _, c := range []struct {
		name string
		// disk is the copy that is attacked, store the folder of availability keys
		// that it works with: the one of after the purge answers as a vault of the
		// operator's own does then, because what is destroyed there is in no copy.
		disk, store   string
		customersKeys bool // the customer has not destroyed them, and they lie on the disk
		opens         bool
		limit         string // where it opens: what the purge has said of it
	}{
		{name: "a copy of before, availability keys in a vault", disk: before, store: after},
		{name: "a copy of after, availability keys in a vault", disk: after, store: after},
		{name: "a copy of after, availability keys copied before", disk: after, store: before},
		{name: "a copy of after, with the customer's keys", disk: after, store: before, customersKeys: true},
		{name: "a copy of before, availability keys copied before", disk: before, store: before, opens: true, limit: "availability keys are files"},
		{name: "a copy of before, with the customer's keys", disk: before, store: after, customersKeys: true, opens: true, limit: "customer keys are in vaults of this server"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			nodetest.CopyFolder(t, c.disk, data)
			if err := os.RemoveAll(filepath.Join(data, "availability")); err != nil {
				t.Fatal(err)
			}
			nodetest.CopyFolder(t, filepath.Join(c.store, "availability"), filepath.Join(data, "availability"))
			a := nodetest.Start(t, node.Options{Data: data})
			undoPurgeRecords(t, a, c.customersKeys)
			for _, name := range []string{alice, idle} {
				got := readStolen(t, a, name)
				if (got == secret) != c.opens || !c.opens && got != "" {
					t.Errorf("of %s it reads %q", name, got)
				}
			}
			if c.opens && (c.limit == "" || !strings.Contains(p.Limit, c.limit)) {
				t.Errorf("the purge did not say that this opens: %s", p.Limit)
			}
		})
	}
}

// undoPurgeRecords removes everything that a purge has recorded in the database.
func undoPurgeRecords(t *testing.T, w *nodetest.World, customersKeys bool) {
	t.Helper()
	statements := []string{
		`UPDATE policy SET purge = 0, enabled = 1, recovery = 1 WHERE kind = 'mailbox'`,
		`UPDATE container SET purged = 0`,
		`UPDATE revision SET erased = 0 WHERE erased <> 0`,
	}
	if !customersKeys {
		statements = append(statements, `DELETE FROM vault_key_version`)
	}
	err := w.Node.DB.InTx(t.Context(), func(tx *store.Tx) error {
		for _, statement := range statements {
			if _, err := tx.Exec(t.Context(), statement); err != nil {
				return err
			}
		}
		if !customersKeys {
			return nil
		}
		_, err := tx.Exec(t.Context(), `INSERT INTO vault_permission (vault, tenant, principal, permissions)
			SELECT id, tenant, '00000002-0000-0ff1-ce00-000000000000', 'get wrapKey unwrapKey' FROM vault WHERE true ON CONFLICT DO NOTHING`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// readStolen returns what can be read of a mailbox.
func readStolen(t *testing.T, w *nodetest.World, name string) string {
	t.Helper()
	r, err := w.Client.ExportMail(t.Context(), api.MailboxInput{Mailbox: name})
	var problem *api.Problem
	if errors.As(err, &problem) && problem.Code != api.NotFound && problem.Code != api.Internal {
		t.Logf("%s: %s", problem.Code, problem.Detail)
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Logf("it breaks off: %v", err)
	}
	return string(content)
}

package service_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/collect"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func newBackup(kind, name string) (in api.CreateBackupInput) {
	in.Body.Kind, in.Body.Container = kind, name
	return in
}

func restore(id, to, policy string) api.RestoreBackupInput {
	in := api.RestoreBackupInput{BackupInput: api.BackupInput{Backup: id}}
	in.Body.To, in.Body.Policy = to, policy
	return in
}

func (w testService) backup(kind, name string) api.Backup {
	w.Helper()
	b, err := w.CreateBackup(w.ctx, newBackup(kind, name))
	w.Must(err)
	return b
}

func (w testService) backups() []api.Backup {
	w.Helper()
	list, err := w.ListBackups(w.ctx, api.ListInput{})
	w.Must(err)
	return list.Items
}

func (w testService) expire(id string) {
	w.Helper()
	_, err := w.ExpireBackup(w.ctx, api.BackupInput{Backup: id})
	w.Must(err)
	w.tidy()
}

// usageOf returns the ledger's line of each version of the first key of policy p.
func (w testService) usageOf() (lines []api.KeyUsage) {
	w.Helper()
	usage, err := w.ListKeyUsage(w.ctx, api.KeyUsageInput{Vault: "A-p"})
	w.Must(err)
	return usage.Items
}

// oldMailbox is alice's mailbox with one message, under policy p.
func (w testService) oldMailbox() {
	w.Helper()
	w.mailPolicy()
	w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
	w.Must(e(w.ImportMail(w.ctx, into(alice), -1, strings.NewReader(mbox))))
	w.tidy()
}

func TestARollDoesNotMoveBackupsAndTheLedgerCountsThem(t *testing.T) {
	each(t, func(w testService) {
		w.oldMailbox()
		b := w.backup("mailbox", alice)
		if b.Items != 1 || b.Bytes != int64(len(mbox)) || b.Container != alice || b.Kind != "mailbox" || b.Protection != w.show(alice).Protection {
			t.Errorf("the backup is %+v", b)
		}
		w.newKey("A-p")
		w.Must(e(w.RefreshPolicy(w.ctx, refresh("p", ""))))
		w.finishRolls()
		if now := w.backups()[0].Protection; now.DataEncryptionPolicyID != b.Protection.DataEncryptionPolicyID || now.Current {
			t.Errorf("after the roll the backup is under %+v", now)
		}
		u := w.usageOf()
		if len(u) != 2 || u[0].Backups != 1 || u[0].Active != 0 || u[0].Verdict != api.InUse || u[1].Backups != 0 || u[1].Active != 1 {
			t.Errorf("the ledger: %+v", u)
		}
		w.clean()

		w.Must(e(w.RestoreBackup(w.ctx, restore(b.ID, "restored@contoso.com", ""))))
		w.tidy()
		if got := w.show("restored@contoso.com"); !got.Protection.Current || got.AssignedPolicy != "p" || w.export("restored@contoso.com") != mbox {
			t.Errorf("restored: %+v", got)
		}
		w.expire(b.ID)
		if u := w.usageOf(); u[0].Verdict != api.SafeToRetire || u[0].Backups != 0 || u[1].Active != 2 {
			t.Errorf("the ledger without the backup: %+v", u)
		}
		w.clean()
	})
}

func TestDepthRootOfAllGenerationsReleasesAVersionThatABackupNeeds(t *testing.T) {
	each(t, func(w testService) {
		w.oldMailbox()
		b := w.backup("mailbox", alice)
		w.newKey("A-p")
		w.Must(e(w.RefreshPolicy(w.ctx, refresh("p", ""))))
		w.finishRolls()
		w.newKey("A-p")
		in := refresh("p", api.DepthRoot)
		w.Must(e(w.RefreshPolicy(w.ctx, in)))
		if u := w.usageOf(); u[0].Verdict != api.InUse || u[0].Backups != 1 {
			t.Errorf("the current generation alone: %+v", u)
		}
		w.newKey("A-p")
		pages := w.Dump("key_page", "backup")
		in.Body.AllGenerations = true
		w.Must(e(w.RefreshPolicy(w.ctx, in)))
		if w.Dump("key_page", "backup") != pages {
			t.Error("a page was touched")
		}
		if u := w.usageOf(); u[0].Verdict != api.SafeToRetire || u[0].Backups != 0 || u[3].Backups != 1 || u[3].Active != 1 {
			t.Errorf("all generations: %+v", u)
		}
		w.Must(e(w.RestoreBackup(w.ctx, restore(b.ID, "restored@contoso.com", ""))))
		if w.export("restored@contoso.com") != mbox {
			t.Error("the restored mailbox has something else")
		}
		w.clean()
	})
}

// A backup of a mailbox that no roll has moved is wrapped with the current policy key;
// the mailbox's own key is not moved.
func TestMakingABackupDoesNotCountAsAnAccess(t *testing.T) {
	each(t, func(w testService) {
		w.oldMailbox()
		w.Must(e(w.SetMailboxState(w.ctx, newState(alice, api.Inactive))))
		w.newKey("A-p")
		w.Must(e(w.RefreshPolicy(w.ctx, refresh("p", ""))))
		w.finishRolls()
		old := w.show(alice).Protection
		b := w.backup("mailbox", alice)
		w.tidy()
		if now := w.show(alice).Protection; now != old || now.Current {
			t.Errorf("the mailbox has moved to %+v", now)
		}
		if !b.Protection.Current {
			t.Errorf("the backup is late: %+v", b.Protection)
		}
		w.Must(e(w.RestoreBackup(w.ctx, restore(b.ID, "restored@contoso.com", ""))))
		if got := w.show("restored@contoso.com"); got.State != api.Active || !got.Protection.Current {
			t.Errorf("restored: %+v", got)
		}
	})
}

func TestASiteIsRestoredWithItsFiles(t *testing.T) {
	each(t, func(w testService) {
		const other = "https://contoso.sharepoint.com/sites/other"
		w.sitePolicy()
		w.finishRolls()
		w.Must(e(w.CreateSite(w.ctx, newSite(team))))
		w.Must(e(w.PutFile(w.ctx, file(team, path), -1, strings.NewReader("content"))))
		b := w.backup("site", team)
		w.Must(e(w.PutFile(w.ctx, file(team, path), -1, strings.NewReader("newer"))))
		w.Must(e(w.RestoreBackup(w.ctx, restore(b.ID, other, ""))))
		var out bytes.Buffer
		w.Must(w.GetFile(w.ctx, file(other, path), func(f api.File) (int64, int64, error) { return 0, -1, nil }, &out))
		got, err := w.ShowSite(w.ctx, site(other))
		w.Must(err)
		if out.String() != "content" || got.Protection.Policy != "Sites" || !got.Protection.Current || got.Items != 1 {
			t.Errorf("restored: %q, %+v", &out, got)
		}
		w.tidy()
		w.clean()
	})
}

func TestInvalidRestoresAreRefused(t *testing.T) {
	each(t, func(w testService) {
		w.oldMailbox()
		w.Must(e(w.CreateSite(w.ctx, newSite(team))))
		mail, files := w.backup("mailbox", alice), w.backup("site", team)
		for _, c := range []struct {
			id, to, policy string
			code           api.Code
		}{
			{"1", "new@contoso.com", "", api.NotFound},
			{"x", "new@contoso.com", "", api.InvalidArgument},
			{mail.ID, "ALICE@contoso.com", "", api.AlreadyExists},
			{mail.ID, "new@contoso.com", "none", api.NotFound},
			{mail.ID, "new@contoso.com", "Service-managed", api.Conflict},
			{mail.ID, "", "", api.InvalidArgument},
			{files.ID, team + "2", "p", api.InvalidArgument},
			{files.ID, "new@contoso.com", "", api.InvalidArgument},
		} {
			before := w.state()
			_, err := w.RestoreBackup(w.ctx, restore(c.id, c.to, c.policy))
			policytest.Refuses(t, err, c.code)
			w.tidy()
			if w.state() != before {
				t.Errorf("%+v: its refusal changed something", c)
			}
		}
		for _, column := range []string{"enabled = 0", "purge = 2"} {
			w.InTx(func(tx *store.Tx) error {
				return e(tx.Exec(w.Ctx, `UPDATE policy SET enabled = 1, purge = 0 WHERE name = 'p'`))
			})
			w.InTx(func(tx *store.Tx) error { return e(tx.Exec(w.Ctx, `UPDATE policy SET `+column+` WHERE name = 'p'`)) })
			_, err := w.RestoreBackup(w.ctx, restore(mail.ID, "new@contoso.com", ""))
			policytest.Refuses(t, err, api.Conflict)
		}
	})
}

func TestBackupsOfAnotherTenantAreNotFound(t *testing.T) {
	each(t, func(w testService) {
		w.oldMailbox()
		b := w.backup("mailbox", alice)
		other := newTestService(w.Neighbour())
		if len(other.backups()) != 0 {
			t.Error("the neighbour lists it")
		}
		_, err := other.RestoreBackup(other.ctx, restore(b.ID, "mine@contoso.com", ""))
		policytest.Refuses(t, err, api.NotFound)
		_, err = other.ExpireBackup(other.ctx, api.BackupInput{Backup: b.ID})
		policytest.Refuses(t, err, api.NotFound)
		if len(w.backups()) != 1 {
			t.Error("it is gone")
		}
	})
}

func TestExpiredBackupsAreDeleted(t *testing.T) {
	each(t, func(w testService) {
		now := time.Now().Truncate(time.Millisecond)
		w.clock.set(now)
		w.oldMailbox()
		at := now.Add(48 * time.Hour)
		in := newBackup("mailbox", alice)
		in.Body.Expires = &now
		policytest.Refuses(t, e(w.CreateBackup(w.ctx, in)), api.InvalidArgument)
		in.Body.Expires = &at
		w.Must(e(w.CreateBackup(w.ctx, in)))
		kept := w.backup("mailbox", alice)
		for _, c := range []struct {
			day  time.Time
			left int
		}{{now.Add(24 * time.Hour), 2}, {at, 1}, {at.Add(1000 * time.Hour), 1}} {
			w.clock.set(c.day)
			w.QueueMaintenance()
			w.tidy()
			if got := w.backups(); len(got) != c.left {
				t.Errorf("at %v there are %d backups", c.day, len(got))
			}
		}
		if got := w.backups()[0]; got.ID != kept.ID || got.Expires != nil {
			t.Errorf("the one that is left is %+v", got)
		}
		if log := w.Dump("audit_entry"); strings.Count(log, "whose time has come") != 1 {
			t.Error("the log does not tell it once")
		}
		w.clean()
	})
}

func TestListOfBackupsIsPaged(t *testing.T) {
	each(t, func(w testService) {
		w.oldMailbox()
		var made []string
		for range 5 {
			made = append(made, w.backup("mailbox", alice).ID)
		}
		for limit, parts := range map[int]int{1: 5, 2: 3, 5: 1, 6: 1} {
			all, got := listAll(t, limit, func(in api.PageInput) (api.List[api.Backup], error) {
				return w.ListBackups(w.ctx, api.ListInput{PageInput: in})
			})
			var ids []string
			for _, b := range all {
				ids = append(ids, b.ID)
			}
			if fmt.Sprint(ids) != fmt.Sprint(made) || got != parts {
				t.Errorf("limit %d: %d parts: %v", limit, got, ids)
			}
		}
	})
}

// Three pages with one key each would be folded into one, which could then not be
// deleted without the policy key.
func TestExpiringABackupNeedsNoKey(t *testing.T) {
	each(t, func(w testService) {
		w.oldMailbox()
		var made []string
		for range 3 {
			made = append(made, w.backup("mailbox", alice).ID)
		}
		w.QueueMaintenance()
		w.tidy()
		for _, vault := range []string{"A-p", "B-p"} {
			w.Vaults.Fail(vault, policytest.Denied())
		}
		w.Policies.Close()
		policytest.Refuses(t, e(w.CreateBackup(w.ctx, newBackup("mailbox", alice))), api.VaultDenied)
		policytest.Refuses(t, e(w.RestoreBackup(w.ctx, restore(made[1], "restored@contoso.com", ""))), api.VaultDenied)
		w.expire(made[1])
		if got := w.backups(); len(got) != 2 || got[0].ID != made[0] || got[1].ID != made[2] {
			t.Errorf("left are %+v", got)
		}
		for _, vault := range []string{"A-p", "B-p"} {
			w.Vaults.Fail(vault, nil)
		}
		w.clean()
	})
}

// A collection runs a day after the last one and not before, deletes dropped blobs, and
// continues after the last complete tenant. If the database contradicts itself, it
// deletes nothing, and the audit log says so.
func TestBlobsAreCollectedOnceADay(t *testing.T) {
	each(t, func(w testService) {
		now := time.Now()
		w.clock.set(now)
		put := func(text string) { w.Must(e(w.PutFile(w.ctx, file(team, path), -1, strings.NewReader(text)))) }
		w.Must(e(w.CreateSite(w.ctx, newSite(team))))
		dropped := func() int64 { return w.Number(`SELECT COUNT(*) FROM dropped`) }
		put("one")
		put("two")
		for hours, left := range []int64{0: 1, 1: 1, 2: 0} {
			now = now.Add(time.Duration(hours) * 12 * time.Hour)
			w.clock.set(now)
			w.Must(w.CollectIfDue(w.Ctx))
			if n := dropped(); n != left {
				t.Errorf("step %d: %d blobs wait", hours, n)
			}
		}
		put("three")
		now = now.Add(collect.Interval)
		w.clock.set(now)
		w.Must(w.parts.Collector.NoteCollected(w.Ctx, now.Add(-collect.Interval), 1<<62)) // was interrupted after the last tenant
		w.Must(w.CollectIfDue(w.Ctx))
		if n := dropped(); n != 1 {
			t.Errorf("an interrupted collection began again: %d blobs wait", n)
		}
		if w.DB.Dialect().Name == "sqlite" { // which notices by comparing the table with its index
			return
		}
		// A row that references the dropped blob and is missing in the index.
		now = now.Add(collect.Interval)
		w.clock.set(now)
		storetest.LoseWrites(t, w.DB, "blob_id", func(*store.DB) {
			w.Exec(`INSERT INTO blob (id, tenant, item, sequence, size, page) SELECT d.blob, d.tenant, b.item, 9, 0, b.page FROM dropped d, blob b`)
		})
		w.Must(w.CollectIfDue(w.Ctx))
		told := w.Number(`SELECT COUNT(*) FROM audit_entry WHERE tenant = ?1 AND outcome = 'Damaged' AND operation = ?2`, w.Tenant, api.CollectBlobs.Name)
		if n := dropped(); n != 1 || told != 1 {
			t.Errorf("%d blobs wait, the log says it %d times", n, told)
		}
	})
}

// If the table of backups and its index contradict each other, no backup is deleted
// automatically.
func TestNoBackupIsDeletedBecauseOfAWrongIndex(t *testing.T) {
	w := newTestService(policytest.New(t, storetest.SQLite(t)))
	now := time.Now().Truncate(time.Millisecond)
	w.oldMailbox()
	at := now.Add(time.Hour)
	in := newBackup("mailbox", alice)
	in.Body.Expires = &at
	w.Must(e(w.CreateBackup(w.ctx, in)))
	db := storetest.LoseWrites(t, w.DB, "backup_tenant", func(db *store.DB) {
		o := newTestServiceOver(w.World.Over(db), w.blobs)
		o.Must(e(o.CreateBackup(o.as(w.admin), in)))
	})
	w = newTestServiceOver(w.World.Over(db), w.blobs)
	w.clock.set(at)
	expire := func() int64 {
		w.QueueMaintenance()
		w.tidy()
		return w.Number(`SELECT COUNT(*) FROM backup NOT INDEXED`)
	}
	if left := expire(); left != 2 {
		t.Errorf("%d of 2 backups are left", left)
	}
	storetest.Reindex(t, db, "backup")
	if left := expire(); left != 0 {
		t.Errorf("%d backups are left after the repair", left)
	}
}

// Upkeep forgets an import that was not continued for more than 30 days, and no other.
func TestUpkeepForgetsImportsThatWereNotContinued(t *testing.T) {
	each(t, func(w testService) {
		for name, days := range map[string]int{"older": 31, "newer": 29} {
			changed := time.Now().AddDate(0, 0, -days).UnixMilli()
			w.Exec(`INSERT INTO mail_import (tenant, container, name, request, format, messages, bytes, digest, link, finished, started, changed)
				VALUES (?1, 1, ?2, 1, 'auto', 1, 1, ?3, 0, 0, ?4, ?4)`, w.Tenant, name, []byte{}, changed)
		}
		w.QueueMaintenance()
		w.tidy()
		older, newer := w.Number(`SELECT COUNT(*) FROM mail_import WHERE name = 'older'`), w.Number(`SELECT COUNT(*) FROM mail_import WHERE name = 'newer'`)
		if older != 0 || newer != 1 {
			t.Errorf("%d older imports and %d newer ones are left", older, newer)
		}
	})
}

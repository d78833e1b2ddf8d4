package verify_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/backup"
	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

// backup is a backup of the active mailbox.
func (w tenant) backup() (b backup.Backup) {
	w.Helper()
	w.Must(w.Contents.Backup(w.Ctx, w.boxes[0], time.Time{}, func(_ *store.Tx, made backup.Backup) error {
		b = made
		return nil
	}))
	return b
}

func TestBackupsAreDecryptedAndCounted(t *testing.T) {
	each(t, func(w tenant) {
		before := w.verify(0)
		w.backup()
		got := w.verify(0)
		if got.Containers != before.Containers+1 || got.Items != before.Items+1 || got.BlobKeys != before.BlobKeys+1 || len(got.Damaged)+len(got.Closed) != 0 {
			t.Errorf("with a backup %+v, before it %+v", got, before)
		}
	})
}

func TestVerifyNamesExactlyTheDamagedBackup(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(w tenant, b backup.Backup)
		kind   string
	}{
		"its key page": {func(w tenant, b backup.Backup) {
			w.exec(`UPDATE key_page SET version = version + 1 WHERE id = ?1`, b.Page)
		}, "key page"},
		"its name": {func(w tenant, b backup.Backup) {
			w.exec(`UPDATE container SET name = ?2 WHERE id = ?1`, b.ID, make([]byte, 60))
		}, "backup"},
		"its pointer": {func(w tenant, b backup.Backup) {
			w.exec(`UPDATE container SET page = ?2 WHERE id = ?1`, b.ID, w.page(0))
		}, "backup"},
		"a key page of its blobs": {func(w tenant, b backup.Backup) {
			w.exec(`UPDATE key_page SET body = ?3 WHERE parent = ?1 AND class = ?2`, b.ID, envelope.ClassBlob, make([]byte, 73))
		}, "item"},
		"an item's metadata": {func(w tenant, b backup.Backup) {
			w.exec(`UPDATE item SET metadata = ?2 WHERE container = ?1`, b.ID, make([]byte, 60))
		}, "item"},
		"an item put into another container": {func(w tenant, b backup.Backup) {
			w.exec(`UPDATE item SET container = ?2 WHERE container = ?1`, w.boxes[1].ID, b.ID)
		}, "item"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(w tenant) {
				b := w.backup()
				c.damage(w, b)
				got := w.verify(0)
				named := false
				for _, f := range got.Damaged {
					named = named || f.Kind == c.kind
					if f.Kind == "container" || f.Kind == "backup" && f.ID != fmt.Sprint(b.ID) {
						t.Errorf("found %+v", f)
					}
				}
				if !named {
					t.Errorf("no %s is named: %+v", c.kind, got.Damaged)
				}
			})
		})
	}
}

func TestABackupThatExpiresDuringVerifyIsNotReported(t *testing.T) {
	each(t, func(w tenant) {
		b := w.backup()
		expired := false
		report, err := w.verifier.Run(w.Ctx, w.Tenant, 0, func(p api.VerifyProgress) {
			if p.Stage == "items" && !expired {
				expired = true
				w.Must(w.Contents.Expire(w.Ctx, b))
				w.Must(w.Contents.Backups.DeleteLeftoverRows(w.Ctx, w.Tenant))
			}
		})
		w.Must(err)
		if !expired || len(report.Damaged)+len(report.Closed) != 0 {
			t.Errorf("%+v", report)
		}
	})
}

// A purge removes the roots of a policy: nothing under it can be decrypted by any
// interface, not even a backup.
func TestABackupWithDestroyedRootsIsInaccessible(t *testing.T) {
	each(t, func(w tenant) {
		b := w.backup()
		w.RemoveAvailabilityKeys()
		for _, vault := range []string{"A-p", "B-p"} {
			w.Vaults.Fail(vault, fmt.Errorf("the vault is gone"))
		}
		w.Policies.Close()
		if _, err := w.Contents.Restore(w.Ctx, b, "restored@contoso.com", w.pol.ID); err == nil || strings.Contains(err.Error(), "exists") {
			t.Errorf("it is restored: %v", err)
		}
	})
}

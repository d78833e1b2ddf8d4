package crashtest

import (
	"fmt"

	"keyroll/api"
	"keyroll/internal/node/nodetest"
)

const restoredSite = "https://contoso.sharepoint.com/sites/restored"

// backups makes backups of a mailbox and of a site, changes the originals, restores the
// backups, and deletes them.
var backups = scenario{
	name: "backup",
	prepare: []step{create(alice, nodetest.MailboxPolicy), importMessages(alice, mbox(1, 5)),
		makeSite(site), put(site, "a.txt", []byte("old")), put(site, "b.txt", []byte("same"))},
	steps: []step{
		backup("mailbox", alice, 5), backup("site", site, 2),
		importMessages(alice, mbox(6, 1)), put(site, "a.txt", []byte("new")),
		restore("mailbox", alice, bob, func(m *model) {
			m.Mailboxes[bob] = mailbox{api.Active, nodetest.MailboxPolicy, mbox(1, 5)}
		}),
		restore("site", site, restoredSite, func(m *model) {
			m.Sites[restoredSite] = map[string]string{"a.txt": digest("old"), "b.txt": digest("same")}
		}),
		expire("mailbox", alice, 5), expire("site", site, 2),
	},
}

// backupLine is a backup in the model.
func backupLine(kind, name string, items int64) string {
	return fmt.Sprintf("%s %s, %d items", kind, name, items)
}

func backup(kind, name string, items int64) step {
	return step{
		name: "backup of " + name,
		do:   func(w *nodetest.World) { w.Backup(kind, name) },
		then: func(m *model) { m.Backups[backupLine(kind, name, items)]++ },
	}
}

func restore(kind, name, to string, then func(m *model)) step {
	return step{
		name: "restore " + name,
		do:   func(w *nodetest.World) { w.Restore(kind, name, to) },
		then: then,
	}
}

func expire(kind, name string, items int64) step {
	return step{
		name: "expire the backup of " + name,
		do:   func(w *nodetest.World) { w.Expire(kind, name) },
		then: func(m *model) { delete(m.Backups, backupLine(kind, name, items)) },
	}
}

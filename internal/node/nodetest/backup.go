package nodetest

import "keyroll/api"

// Backup makes a backup of a mailbox or a site.
func (w *World) Backup(kind, name string) api.Backup {
	w.t.Helper()
	var in api.CreateBackupInput
	in.Body.Kind, in.Body.Container = kind, name
	b, err := w.Client.CreateBackup(w.t.Context(), in)
	if err != nil {
		w.t.Fatalf("back up %s: %v", name, err)
	}
	return b
}

// Backups lists the backups.
func (w *World) Backups() []api.Backup {
	w.t.Helper()
	list, err := w.Client.ListBackups(w.t.Context(), api.ListInput{})
	if err != nil {
		w.t.Fatal(err)
	}
	return list.Items
}

// Restore restores the first backup of a container.
func (w *World) Restore(kind, name, to string) {
	w.t.Helper()
	in := api.RestoreBackupInput{BackupInput: w.backupOf(kind, name)}
	in.Body.To = to
	if _, err := w.Client.RestoreBackup(w.t.Context(), in); err != nil {
		w.t.Fatalf("restore %s: %v", name, err)
	}
}

// Expire deletes the first backup of a container.
func (w *World) Expire(kind, name string) {
	w.t.Helper()
	if _, err := w.Client.ExpireBackup(w.t.Context(), w.backupOf(kind, name)); err != nil {
		w.t.Fatalf("expire the backup of %s: %v", name, err)
	}
}

func (w *World) backupOf(kind, name string) api.BackupInput {
	w.t.Helper()
	for _, b := range w.Backups() {
		if b.Kind == kind && b.Container == name {
			return api.BackupInput{Backup: b.ID}
		}
	}
	w.t.Fatalf("there is no backup of %s", name)
	return api.BackupInput{}
}

package api

import (
	"net/http"
	"time"
)

// Backup is a frozen copy of a container's keys and item list.
type Backup struct {
	ID         string     `json:"id"`
	Kind       string     `json:"kind" doc:"mailbox or site"`
	Container  string     `json:"container" doc:"name of the mailbox, URL of the site"`
	Created    time.Time  `json:"created"`
	Expires    *time.Time `json:"expires,omitempty" doc:"when the backup is deleted automatically; default: never"`
	Protection Protection `json:"protection"`
	Items      int64      `json:"items"`
	Bytes      int64      `json:"bytes"`
}

// BackupInput names a backup.
type BackupInput struct {
	Backup string `path:"backup" doc:"id of the backup"`
}

type (
	CreateBackupInput struct {
		Body struct {
			Kind      string     `json:"kind" enum:"mailbox,site"`
			Container string     `json:"container"`
			Expires   *time.Time `json:"expires,omitempty"`
		}
	}
	RestoreBackupInput struct {
		BackupInput
		Body struct {
			To     string `json:"to" doc:"name of the new mailbox, URL of the new site"`
			Policy string `json:"policy,omitempty" doc:"policy of the new mailbox; default: the policy that the backed up mailbox had"`
		}
	}
)

// Backups of containers.
var (
	CreateBackup = define[CreateBackupInput, Backup](Meta{Name: "CreateBackup", Method: http.MethodPost, Path: "/v1/backups",
		Summary: "Make a backup of a mailbox or a site"})
	ListBackups = define[ListInput, List[Backup]](Meta{Name: "ListBackups", Method: http.MethodGet, Path: "/v1/backups",
		Summary: "List backups"})
	RestoreBackup = define[RestoreBackupInput, Backup](Meta{Name: "RestoreBackup", Method: http.MethodPost, Path: "/v1/backups/{backup}/restore",
		Summary: "Make a new mailbox or site from a backup, under the current policy key of its policy"})
	ExpireBackup = define[BackupInput, Backup](Meta{Name: "ExpireBackup", Method: http.MethodDelete, Path: "/v1/backups/{backup}",
		Summary: "Delete a backup"})
)

package client

import (
	"context"

	"keyroll/api"
)

// CreateBackup makes a backup of a mailbox or a site.
func (c *Client) CreateBackup(ctx context.Context, in api.CreateBackupInput) (api.Backup, error) {
	return call(ctx, c, api.CreateBackup, in)
}

// ListBackups returns a page of the list of backups.
func (c *Client) ListBackups(ctx context.Context, in api.ListInput) (api.List[api.Backup], error) {
	return call(ctx, c, api.ListBackups, in)
}

// RestoreBackup makes a new mailbox or site from a backup.
func (c *Client) RestoreBackup(ctx context.Context, in api.RestoreBackupInput) (api.Backup, error) {
	return call(ctx, c, api.RestoreBackup, in)
}

// ExpireBackup deletes a backup.
func (c *Client) ExpireBackup(ctx context.Context, in api.BackupInput) (api.Backup, error) {
	return call(ctx, c, api.ExpireBackup, in)
}

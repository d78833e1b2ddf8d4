package server_test

import (
	"context"

	"keyroll/api"
)

func (f *fakeService) CreateBackup(ctx context.Context, in api.CreateBackupInput) (api.Backup, error) {
	return fake[api.Backup](ctx, f, "CreateBackup", in)
}

func (f *fakeService) ListBackups(ctx context.Context, in api.ListInput) (api.List[api.Backup], error) {
	return fake[api.List[api.Backup]](ctx, f, "ListBackups", in)
}

func (f *fakeService) RestoreBackup(ctx context.Context, in api.RestoreBackupInput) (api.Backup, error) {
	return fake[api.Backup](ctx, f, "RestoreBackup", in)
}

func (f *fakeService) ExpireBackup(ctx context.Context, in api.BackupInput) (api.Backup, error) {
	return fake[api.Backup](ctx, f, "ExpireBackup", in)
}

func (f *fakeService) AbandonContainer(ctx context.Context, in api.AbandonInput) (api.Abandoned, error) {
	return fake[api.Abandoned](ctx, f, "AbandonContainer", in)
}

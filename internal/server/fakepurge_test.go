package server_test

import (
	"context"

	"keyroll/api"
)

func (f *fakeService) AddPurgeApprover(ctx context.Context, in api.AddPurgeApproverInput) (api.CreatedPurgeApprover, error) {
	return fake[api.CreatedPurgeApprover](ctx, f, "AddPurgeApprover", in)
}

func (f *fakeService) ListPurgeApprovers(ctx context.Context, in api.None) (api.List[api.PurgeApprover], error) {
	return fake[api.List[api.PurgeApprover]](ctx, f, "ListPurgeApprovers", in)
}

func (f *fakeService) RequestPurge(ctx context.Context, in api.RequestPurgeInput) (api.Purge, error) {
	return fake[api.Purge](ctx, f, "RequestPurge", in)
}

func (f *fakeService) ShowPurge(ctx context.Context, in api.PolicyInput) (api.Purge, error) {
	return fake[api.Purge](ctx, f, "ShowPurge", in)
}

func (f *fakeService) ListPurges(ctx context.Context, in api.ListInput) (api.List[api.Purge], error) {
	return fake[api.List[api.Purge]](ctx, f, "ListPurges", in)
}

func (f *fakeService) ApprovePurge(ctx context.Context, in api.PolicyInput) (api.Purge, error) {
	return fake[api.Purge](ctx, f, "ApprovePurge", in)
}

func (f *fakeService) RecoverPolicy(ctx context.Context, in api.PolicyInput) (api.Policy, error) {
	return fake[api.Policy](ctx, f, "RecoverPolicy", in)
}

func (f *fakeService) RestoreSites(ctx context.Context, in api.RestoreSitesInput) (api.Policy, error) {
	return fake[api.Policy](ctx, f, "RestoreSites", in)
}

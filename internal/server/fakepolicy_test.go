package server_test

import (
	"context"
	"io"

	"keyroll/api"
)

func (f *fakeService) SetPolicy(ctx context.Context, in api.SetPolicyInput) (api.Policy, error) {
	return fake[api.Policy](ctx, f, "SetPolicy", in)
}

func (f *fakeService) ReplacePolicyKeys(ctx context.Context, in api.ReplacePolicyKeysInput) (api.Refreshed, error) {
	return fake[api.Refreshed](ctx, f, "ReplacePolicyKeys", in)
}

func (f *fakeService) LeavePolicy(ctx context.Context, in api.LeavePolicyInput) (api.Refreshed, error) {
	return fake[api.Refreshed](ctx, f, "LeavePolicy", in)
}

func (f *fakeService) AssignPolicy(ctx context.Context, in api.AssignPolicyInput) (api.Policy, error) {
	return fake[api.Policy](ctx, f, "AssignPolicy", in)
}

func (f *fakeService) ShowAssignment(ctx context.Context, in api.None) (api.Policy, error) {
	return fake[api.Policy](ctx, f, "ShowAssignment", in)
}

func (f *fakeService) ListWorkloads(ctx context.Context, in api.None) (api.List[api.Workload], error) {
	return fake[api.List[api.Workload]](ctx, f, "ListWorkloads", in)
}

func (f *fakeService) ListWorkloadItems(ctx context.Context, in api.ListStoreItems) (api.List[api.File], error) {
	return fake[api.List[api.File]](ctx, f, "ListWorkloadItems", in)
}

func (f *fakeService) PutWorkloadItem(ctx context.Context, in api.WorkloadItemInput, size int64, r io.Reader) (api.File, error) {
	if f.read != nil {
		if err := f.read(ctx, size, r); err != nil {
			return api.File{}, err
		}
	}
	return fake[api.File](ctx, f, "PutWorkloadItem", in)
}

func (f *fakeService) GetWorkloadItem(ctx context.Context, in api.WorkloadItemInput, w io.Writer) error {
	return f.content(ctx, "GetWorkloadItem", in, 0, -1, w)
}

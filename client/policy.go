package client

import (
	"context"
	"io"

	"keyroll/api"
)

// SetPolicy changes a policy's name or description, enables or disables it.
func (c *Client) SetPolicy(ctx context.Context, in api.SetPolicyInput) (api.Policy, error) {
	return call(ctx, c, api.SetPolicy, in)
}

// ReplacePolicyKeys replaces both customer keys of a policy and rolls.
func (c *Client) ReplacePolicyKeys(ctx context.Context, in api.ReplacePolicyKeysInput) (api.Refreshed, error) {
	return call(ctx, c, api.ReplacePolicyKeys, in)
}

// LeavePolicy ends a policy and returns everything that it protects to the policy that
// applies without it.
func (c *Client) LeavePolicy(ctx context.Context, in api.LeavePolicyInput) (api.Refreshed, error) {
	return call(ctx, c, api.LeavePolicy, in)
}

// AssignPolicy assigns a multi-workload policy to the tenant.
func (c *Client) AssignPolicy(ctx context.Context, in api.AssignPolicyInput) (api.Policy, error) {
	return call(ctx, c, api.AssignPolicy, in)
}

// ShowAssignment shows the multi-workload policy that is assigned.
func (c *Client) ShowAssignment(ctx context.Context, in api.None) (api.Policy, error) {
	return call(ctx, c, api.ShowAssignment, in)
}

// ListWorkloads lists the workload stores: all of them if in selects no page.
func (c *Client) ListWorkloads(ctx context.Context, in api.ListInput) (api.List[api.Workload], error) {
	return wholeList(ctx, c, api.ListWorkloads, in)
}

// ListWorkloadItems lists the items of a workload store: all of them, by name, if in
// selects no page.
func (c *Client) ListWorkloadItems(ctx context.Context, in api.ListStoreItems) (api.List[api.File], error) {
	return byPath(whole(in.PageInput, func(page api.PageInput) (api.List[api.File], error) {
		in.PageInput = page
		return call(ctx, c, api.ListWorkloadItems, in)
	}))
}

// PutWorkloadItem stores an item, all of it or nothing, and replaces one of the same
// name. size is the length of r in bytes, or -1. After a failure r may be read from
// for a moment more.
func (c *Client) PutWorkloadItem(ctx context.Context, in api.WorkloadItemInput, size int64, r io.Reader) (api.File, error) {
	return upload(ctx, c, api.PutWorkloadItem, in, &content{r: r, size: size})
}

// GetWorkloadItem returns an item.
func (c *Client) GetWorkloadItem(ctx context.Context, in api.WorkloadItemInput) (io.ReadCloser, error) {
	return c.receive(ctx, api.GetWorkloadItem.Meta, in, "", 0)
}

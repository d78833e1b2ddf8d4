package client

import (
	"context"

	"keyroll/api"
)

// SetPolicy changes a policy's name or description, enables or disables it.
func (c *Client) SetPolicy(ctx context.Context, in api.SetPolicyInput) (api.Policy, error) {
	return call(ctx, c, api.SetPolicy, in)
}

// ReplacePolicyKeys puts a policy under two other customer keys and rolls.
func (c *Client) ReplacePolicyKeys(ctx context.Context, in api.ReplacePolicyKeysInput) (api.Refreshed, error) {
	return call(ctx, c, api.ReplacePolicyKeys, in)
}

// LeavePolicy brings everything that a policy protects back to where it stands
// without it.
func (c *Client) LeavePolicy(ctx context.Context, in api.PolicyInput) (api.Refreshed, error) {
	return call(ctx, c, api.LeavePolicy, in)
}

// AssignPolicy assigns a multi-workload policy to the tenant.
func (c *Client) AssignPolicy(ctx context.Context, in api.AssignPolicyInput) (api.Policy, error) {
	return call(ctx, c, api.AssignPolicy, in)
}

// ShowAssignment shows the multi-workload policy that is assigned to the tenant.
func (c *Client) ShowAssignment(ctx context.Context, in api.None) (api.Policy, error) {
	return call(ctx, c, api.ShowAssignment, in)
}

// RecoverPolicy puts a site policy whose customer keys are lost into recovery mode.
func (c *Client) RecoverPolicy(ctx context.Context, in api.PolicyInput) (api.Policy, error) {
	return call(ctx, c, api.RecoverPolicy, in)
}

// RestoreSites puts a site policy in recovery mode under two new customer keys.
func (c *Client) RestoreSites(ctx context.Context, in api.RestoreSitesInput) (api.Policy, error) {
	return call(ctx, c, api.RestoreSites, in)
}

// RequestPurge requests the purge of a policy and of all that it protects.
func (c *Client) RequestPurge(ctx context.Context, in api.RequestPurgeInput) (api.Purge, error) {
	return call(ctx, c, api.RequestPurge, in)
}

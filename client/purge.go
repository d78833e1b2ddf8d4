package client

import (
	"context"

	"keyroll/api"
)

// RequestPurge requests the purge of a policy and of all that it protects.
func (c *Client) RequestPurge(ctx context.Context, in api.RequestPurgeInput) (api.Purge, error) {
	return call(ctx, c, api.RequestPurge, in)
}

// ShowPurge shows the progress of the purge of a policy.
func (c *Client) ShowPurge(ctx context.Context, in api.PolicyInput) (api.Purge, error) {
	return call(ctx, c, api.ShowPurge, in)
}

// ListPurges lists purges: all of them if in selects no page.
func (c *Client) ListPurges(ctx context.Context, in api.ListInput) (api.List[api.Purge], error) {
	return wholeList(ctx, c, api.ListPurges, in)
}

// ApprovePurge approves a purge; the second approval carries it out.
func (c *Client) ApprovePurge(ctx context.Context, in api.PolicyInput) (api.Purge, error) {
	return call(ctx, c, api.ApprovePurge, in)
}

// RecoverPolicy puts a site policy whose customer keys are lost into recovery
// mode.
func (c *Client) RecoverPolicy(ctx context.Context, in api.PolicyInput) (api.Policy, error) {
	return call(ctx, c, api.RecoverPolicy, in)
}

// RestoreSites ends the recovery mode of a site policy with two new customer keys.
func (c *Client) RestoreSites(ctx context.Context, in api.RestoreSitesInput) (api.Policy, error) {
	return call(ctx, c, api.RestoreSites, in)
}

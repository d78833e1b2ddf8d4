package client

import (
	"context"

	"keyroll/api"
)

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

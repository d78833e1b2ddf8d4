package client

import (
	"context"

	"keyroll/api"
)

// CreateApplication registers an application and returns its first secret.
func (c *Client) CreateApplication(ctx context.Context, in api.CreateApplicationInput) (api.CreatedApplication, error) {
	return call(ctx, c, api.CreateApplication, in)
}

// ListApplications lists the applications.
func (c *Client) ListApplications(ctx context.Context, in api.None) (api.List[api.ApplicationInfo], error) {
	return call(ctx, c, api.ListApplications, in)
}

// RemoveApplication removes an application.
func (c *Client) RemoveApplication(ctx context.Context, in api.RemoveApplicationInput) (api.None, error) {
	return call(ctx, c, api.RemoveApplication, in)
}

// AddApplicationCredential adds a secret to an application and returns it.
func (c *Client) AddApplicationCredential(ctx context.Context, in api.AddApplicationCredentialInput) (api.CreatedCredential, error) {
	return call(ctx, c, api.AddApplicationCredential, in)
}

// RemoveApplicationCredential removes a secret of an application.
func (c *Client) RemoveApplicationCredential(ctx context.Context, in api.RemoveApplicationCredentialInput) (api.None, error) {
	return call(ctx, c, api.RemoveApplicationCredential, in)
}

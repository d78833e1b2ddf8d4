package client

import (
	"context"

	"keyroll/api"
)

// AbandonContainer deletes a container whose key page is damaged beyond repair.
func (c *Client) AbandonContainer(ctx context.Context, in api.AbandonInput) (api.Abandoned, error) {
	return call(ctx, c, api.AbandonContainer, in)
}

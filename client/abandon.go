package client

import (
	"context"

	"keyroll/api"
)

// AbandonContainer takes away a container whose key page is lost.
func (c *Client) AbandonContainer(ctx context.Context, in api.AbandonInput) (api.Abandoned, error) {
	return call(ctx, c, api.AbandonContainer, in)
}

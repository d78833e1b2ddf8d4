package client

import (
	"context"

	"keyroll/api"
)

// RollAvailabilityKeys gives availability keys a new version and destroys the
// older ones.
func (c *Client) RollAvailabilityKeys(ctx context.Context, in api.RollAvailabilityKeysInput) (api.RolledAvailabilityKeys, error) {
	return call(ctx, c, api.RollAvailabilityKeys, in)
}

package client

import (
	"context"

	"keyroll/api"
)

// CollectBlobs deletes unreferenced blobs from the blob store. It calls progress, if
// not nil, as they are found.
func (c *Client) CollectBlobs(ctx context.Context, in api.CollectBlobsInput, progress func(api.CollectedBlobs)) (api.CollectedBlobs, error) {
	return collection.follow(ctx, c, in, progress)
}

var collection = followed[api.CollectBlobsInput, api.CollectBlobsEvent, api.CollectedBlobs, api.CollectedBlobs]{api.CollectBlobs, "collection",
	func(e api.CollectBlobsEvent) (*api.CollectedBlobs, *api.CollectedBlobs, *api.Problem) {
		return e.Progress, e.Report, e.Problem
	}}

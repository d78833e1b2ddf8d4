package service

import (
	"context"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/content"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// orphanGrace is how old an orphan is that is collected, unless the request says
// so: far longer than an upload takes.
const orphanGrace = 24 * time.Hour

// CollectBlobs deletes orphans of all tenants from the blob store; what one is
// and why it is safe stands at content.Collection. Its audit entry is written
// before the first of them goes.
func (s *Service) CollectBlobs(ctx context.Context, in api.CollectBlobsInput, progress func(api.CollectedBlobs)) (api.CollectedBlobs, error) {
	return do(ctx, s, api.CollectBlobs.Meta, "", func(ctx context.Context, c *call) (out api.CollectedBlobs, err error) {
		const longest = 10 * 365 * 24 * 3600
		if in.Body.GraceSeconds < 0 || in.Body.GraceSeconds > longest {
			return out, fail.New(api.InvalidArgument, "a grace of %d seconds is not within 0 to %d", in.Body.GraceSeconds, longest)
		}
		grace := time.Duration(in.Body.GraceSeconds) * time.Second
		if grace == 0 {
			grace = orphanGrace
		}
		collection, err := s.Contents.Collect(ctx, grace, in.Body.DryRun, func(tx *store.Tx) error { return c.done(ctx, tx, "older than "+grace.String()) })
		if err != nil {
			return out, err
		}
		tell := func(now content.Collected) { progress(api.CollectedBlobs(now)) }
		for after := int64(0); ; {
			var tenants []access.Tenant
			err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
				tenants, err = s.Access.Tenants(ctx, tx, after, 1000)
				return err
			})
			if err != nil {
				return out, err
			}
			if len(tenants) == 0 {
				break
			}
			for _, t := range tenants {
				if err := collection.Tenant(ctx, t.ID, tell); err != nil {
					return out, err
				}
				after = t.ID
			}
		}
		out = api.CollectedBlobs(collection.Collected)
		if in.Body.DryRun {
			return out, c.noteRead(ctx)
		}
		return out, nil
	})
}

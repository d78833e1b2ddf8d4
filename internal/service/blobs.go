package service

import (
	"context"
	"errors"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/audit"
	"keyroll/internal/content"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// orphanGrace is how old an orphan is that is collected, unless the request says
// so: far longer than an upload takes.
const orphanGrace = 24 * time.Hour

// CollectBlobs deletes from the blob store what nothing names, of all tenants; why
// that is safe is said at content.Collection. Its audit entry is written before the
// first blob goes.
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
		if err := s.collect(ctx, collection, 0, tell, nil); err != nil {
			return out, err
		}
		out = api.CollectedBlobs(collection.Collected)
		if in.Body.DryRun {
			return out, c.noteRead(ctx)
		}
		return out, nil
	})
}

// collect takes a collection through all tenants after one of them. passed, if not
// nil, is told up to which tenant all is done.
func (s *Service) collect(ctx context.Context, collection *content.Collection, after int64, tell func(content.Collected), passed func(after int64) error) (err error) {
	defer func() {
		if fail.Is(err, api.Damaged) {
			err = errors.Join(err, s.contradicted(ctx, err))
		}
	}()
	for {
		var tenants []access.Tenant
		err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
			tenants, err = s.Access.Tenants(ctx, tx, after, 1000)
			return err
		})
		if err != nil {
			return err
		}
		if len(tenants) == 0 {
			return collection.End(ctx)
		}
		for _, t := range tenants {
			if err := collection.Tenant(ctx, t.ID, tell); err != nil {
				return err
			}
			after = t.ID
		}
		if passed == nil {
			continue
		}
		if err := errors.Join(collection.End(ctx), passed(after)); err != nil {
			return err
		}
	}
}

// contradicted logs that blobs were not deleted because the database contradicts
// itself, and writes it into the audit logs of the tenants whose blobs they are.
func (s *Service) contradicted(ctx context.Context, why error) error {
	s.Logger.ErrorContext(ctx, "the database contradicts itself about blobs; none of them is deleted", "error", why)
	var c *content.Contradiction
	if !errors.As(why, &c) {
		return nil
	}
	_, detail, _ := fail.Public(why)
	return s.DB.InTx(ctx, func(tx *store.Tx) error {
		for _, tenant := range c.Tenants {
			if err := audit.Notice(ctx, tx, audit.Entry{Tenant: tenant, Outcome: string(api.Damaged), Detail: detail}, s.Now()); err != nil {
				return err
			}
		}
		return nil
	})
}

// CollectIfDue collects blobs if the last time was a day ago. A collection that was
// interrupted goes on where it was; one that meets damage ends until the next day.
func (s *Service) CollectIfDue(ctx context.Context) error {
	began := s.Now()
	due, after, err := s.Contents.CollectionDue(ctx, began)
	if err != nil || !due {
		return err
	}
	ctx = audit.WithOrigin(ctx, audit.Origin{Operation: api.CollectBlobs.Name, Request: "schedule", System: true})
	collection, err := s.Contents.Collect(ctx, orphanGrace, false, nil)
	if err != nil {
		return err
	}
	last := began.Add(-content.CollectEvery)
	err = s.collect(ctx, collection, after, nil, func(after int64) error { return s.Contents.NoteCollected(ctx, last, after) })
	if err != nil && !fail.Is(err, api.Damaged) {
		return err
	}
	if collection.Removed > 0 {
		s.Logger.InfoContext(ctx, "collected blobs", "blobs", collection.Blobs, "orphans", collection.Orphans, "removed", collection.Removed)
	}
	return s.Contents.NoteCollected(ctx, began, 0)
}

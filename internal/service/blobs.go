package service

import (
	"context"
	"errors"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/audit"
	"keyroll/internal/collect"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/store"
)

// orphanGrace is the default minimum age of an orphan that is collected: far longer
// than an upload takes.
const orphanGrace = 24 * time.Hour

// CollectBlobs deletes the unreferenced blobs of all tenants; collect.Collection
// explains why that is safe. Then it compacts objects. Its audit entry is written before the first blob is
// deleted.
func (s *Service) CollectBlobs(ctx context.Context, in api.CollectBlobsInput, progress func(api.CollectedBlobs)) (api.CollectedBlobs, error) {
	return do(ctx, s, api.CollectBlobs.Meta, "", func(ctx context.Context, c *call) (out api.CollectedBlobs, err error) {
		const longest = 10 * 365 * 24 * 3600
		if in.Body.GraceSeconds < 0 || in.Body.GraceSeconds > longest {
			return out, fail.New(api.InvalidArgument, "grace period %d seconds must be 0 to %d", in.Body.GraceSeconds, longest)
		}
		grace := time.Duration(in.Body.GraceSeconds) * time.Second
		if grace == 0 {
			grace = orphanGrace
		}
		collection, err := s.collector.NewCollection(grace, in.Body.DryRun)
		if err != nil {
			return out, err
		}
		if !in.Body.DryRun {
			err := c.Change(ctx, func(tx *store.Tx) (string, error) { return "older than " + grace.String(), collection.Begin(ctx, tx) })
			if err != nil {
				return out, err
			}
			fault.Point("collect.after-commit")
		}
		report := func(now collect.Collected) { progress(collectedBlobs(now)) }
		if err := s.collect(ctx, collection, 0, report, nil); err != nil {
			return out, err
		}
		out = collectedBlobs(collection.Collected)
		if in.Body.DryRun {
			return out, c.RecordRead(ctx)
		}
		compacted, err := s.compactor.Run(ctx)
		out.Moved = compacted.Blobs
		return out, err
	})
}

func collectedBlobs(c collect.Collected) api.CollectedBlobs {
	return api.CollectedBlobs{Blobs: c.Blobs, Bytes: c.Bytes, Orphans: c.Orphans, OrphanBytes: c.OrphanBytes, Removed: c.Removed}
}

// collect runs a collection over all tenants after the given one. checkpoint, if not
// nil, is called with the last tenant that is complete.
func (s *Service) collect(ctx context.Context, collection *collect.Collection, after int64, report func(collect.Collected), checkpoint func(after int64) error) (err error) {
	defer func() {
		if fail.Is(err, api.Damaged) {
			err = errors.Join(err, s.recordContradiction(ctx, err))
		}
	}()
	for {
		var tenants []access.Tenant
		err := s.db.View(ctx, func(tx *store.Tx) (err error) {
			tenants, err = s.access.Tenants(ctx, tx, after, 1000)
			return err
		})
		if err != nil {
			return err
		}
		if len(tenants) == 0 {
			return collection.End(ctx)
		}
		for _, t := range tenants {
			if err := collection.Tenant(ctx, t.ID, report); err != nil {
				return err
			}
			after = t.ID
		}
		if checkpoint == nil {
			continue
		}
		if err := errors.Join(collection.End(ctx), checkpoint(after)); err != nil {
			return err
		}
	}
}

// recordContradiction logs that blobs were not deleted because the database
// contradicts itself, and writes that to the audit logs of the tenants that own them.
func (s *Service) recordContradiction(ctx context.Context, why error) error {
	s.logger.ErrorContext(ctx, "the database contradicts itself about blobs; none of them is deleted", "error", why)
	var c *collect.Contradiction
	if !errors.As(why, &c) {
		return nil
	}
	_, detail, _ := fail.Public(why)
	return s.db.InTx(ctx, func(tx *store.Tx) error {
		for _, tenant := range c.Tenants {
			if err := audit.Notice(ctx, tx, audit.Entry{Tenant: tenant, Outcome: string(api.Damaged), Detail: detail}, s.now()); err != nil {
				return err
			}
		}
		return nil
	})
}

// CollectIfDue collects blobs, and then compacts objects, if the last collection was a day
// ago. A collection that was interrupted continues where it was; one that finds damage ends
// until the next day.
func (s *Service) CollectIfDue(ctx context.Context) error {
	began := s.now()
	due, after, err := s.collector.Due(ctx, began)
	if err != nil || !due {
		return err
	}
	ctx = audit.WithOrigin(ctx, audit.Origin{Operation: api.CollectBlobs.Name, Request: "schedule", System: true})
	collection, err := s.collector.NewCollection(orphanGrace, false)
	if err != nil {
		return err
	}
	if err := s.db.InTx(ctx, func(tx *store.Tx) error { return collection.Begin(ctx, tx) }); err != nil {
		return err
	}
	fault.Point("collect.after-commit")
	last := began.Add(-collect.Interval)
	err = s.collect(ctx, collection, after, nil, func(after int64) error { return s.collector.NoteCollected(ctx, last, after) })
	if err != nil && !fail.Is(err, api.Damaged) {
		return err
	}
	if collection.Removed > 0 {
		s.logger.InfoContext(ctx, "collected blobs", "blobs", collection.Blobs, "orphans", collection.Orphans, "removed", collection.Removed)
	}
	compacted, err := s.compactor.Run(ctx)
	if compacted.Blobs > 0 {
		s.logger.InfoContext(ctx, "compacted objects", "blobs", compacted.Blobs, "bytes", compacted.Bytes, "objects", compacted.Objects)
	}
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		s.logger.WarnContext(ctx, "objects were not compacted, or not all; this is tried again in a day", "error", err)
	}
	return s.collector.NoteCollected(ctx, began, 0)
}

package roll

import (
	"context"
	"fmt"
	"slices"
	"time"

	"keyroll/api"
	"keyroll/internal/store"
)

// Rates of docs/performance.md, rounded down: those of the slower database.
const (
	statedContainers = 500_000 // a second
	statedBlobs      = 800_000
	statedBytes      = 50 << 20
)

// minRateSample is how many containers a roll must have moved before its rate is
// used to estimate another one: below it the time is that of a commit or two.
const minRateSample = 10_000

// Estimate completes e with the size of a planned roll and the time that it takes:
// at the rate of the tenant's newest finished roll of this depth that is large
// enough, else at the stated rates, and never faster than the roll's limits.
func (r *Roller) Estimate(ctx context.Context, tx *store.Tx, plan Roll, e *api.Estimate) error {
	sc, err := plan.scope(ctx, tx, r.config.Policies)
	if err != nil {
		return err
	}
	if e.Containers, err = sc.count(ctx, tx); err != nil {
		return err
	}
	all, err := sc.with(union(slices.Clone(plan.Classes), inactiveClasses)).count(ctx, tx)
	if err != nil {
		return err
	}
	e.Stays = all - e.Containers
	deep, err := r.countDeepWork(ctx, tx, plan, sc.withoutBackups())
	if err != nil {
		return err
	}
	e.Blobs, e.Bytes = deep.Blobs, deep.Bytes
	like, err := query(ctx, tx, `tenant = ?1 AND depth = ?2 AND state = ?3 AND total >= ?4 AND finished > started
		AND containers_per_second = 0 AND bytes_per_second = 0 ORDER BY id DESC LIMIT 1`,
		plan.Tenant, string(plan.Depth), string(api.RollFinished), minRateSample)
	if err != nil {
		return err
	}
	var takes float64
	if len(like) > 0 {
		took := like[0].Finished.Sub(like[0].Started)
		takes = took.Seconds() * relativeSize(plan, *e, like[0])
		e.Basis = fmt.Sprintf("roll %d, which took %s for %d containers, pauses included", like[0].ID, took.Round(time.Millisecond), like[0].Total)
	} else {
		takes = float64(plan.Total)/statedContainers + float64(e.Blobs)/statedBlobs + float64(e.Bytes)/statedBytes
		e.Basis = "the rates that docs/performance.md states, measured on a machine of two cores"
	}
	if n := plan.ContainersPerSecond; n > 0 && float64(plan.Total)/float64(n) > takes {
		takes = float64(plan.Total) / float64(n)
		e.Basis = "the limit of containers a second"
	}
	if n := plan.BytesPerSecond; n > 0 && float64(e.Bytes)/float64(n) > takes {
		takes = float64(e.Bytes) / float64(n)
		e.Basis = "the limit of bytes a second"
	}
	e.Seconds += takes
	return nil
}

// relativeSize is the size of one roll divided by that of another one of the same
// depth.
func relativeSize(r Roll, e api.Estimate, of Roll) float64 {
	switch {
	case r.Depth == api.DepthContainer && of.BlobsTotal > 0:
		return float64(e.Blobs) / float64(of.BlobsTotal)
	case r.Depth == api.DepthContent && of.BytesTotal > 0:
		return float64(e.Bytes) / float64(of.BytesTotal)
	}
	return float64(r.Total) / float64(of.Total)
}

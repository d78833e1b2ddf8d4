package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
)

// RollResult is the result of a benchmark of depth policy: medians, rates in containers
// per second.
type RollResult struct {
	RatioToRowByRow    float64 `json:"ratioToRowByRow"`
	RatioToPages       float64 `json:"ratioToPages"`
	PerSecond          float64 `json:"perSecond"`
	RowByRowPerSecond  float64 `json:"rowByRowPerSecond"`
	PagesPerSecond     float64 `json:"pagesPerSecond"`
	CryptoPerSecond    float64 `json:"cryptoPerSecond"`
	Containers         int     `json:"containers"`
	Pages              int64   `json:"pages"`
	PageSlots          int     `json:"pageSlots"`
	Seconds            float64 `json:"seconds"` // of one roll
	RootSeconds        float64 `json:"rootSeconds"`
	PeakRSSBytes       int64   `json:"peakRSSBytes"` // of a roll, over all rounds
	KeysOpenedAndEqual int64   `json:"keysOpenedAndEqual"`
	Base
}

// Roll fills a database with containers, rolls them at depth policy in interleaved
// rounds with the upper bounds, and decrypts every key again at the end.
func Roll(ctx context.Context, o Options) (r RollResult, err error) {
	if err := o.check(); err != nil {
		return r, err
	}
	databases, drop, err := o.databases(ctx, 2)
	if err != nil {
		return r, err
	}
	defer drop(&err)
	o.Progress(fmt.Sprintf("fill %d mailboxes, twice", o.Containers))
	full, bare, err := startBoth(ctx, o, databases)
	if err != nil {
		return r, err
	}
	defer full.Close()
	defer bare.Close()
	bare.skipCryptography()
	o.Progress("fill the rows for comparison")
	rows, err := newRows(ctx, bare.bulk(), full.Tenant.ID, o.Containers)
	if err != nil {
		return r, err
	}
	before, err := full.containerKeys(ctx)
	if err != nil {
		return r, err
	}
	sample, err := newSample(ctx, full.walk)
	if err != nil {
		return r, err
	}
	s := series{}
	for round := range o.Rounds {
		o.Progress(roundOf(round, o.Rounds))
		s.add("cryptoPerSecond", cryptography(sample, o.Containers))
		pages, err := bare.roll(ctx, api.DepthPolicy, api.RollOptions{})
		if err != nil {
			return r, err
		}
		byRow, err := rows.roll(ctx)
		if err != nil {
			return r, err
		}
		var took time.Duration
		peak, err := peakOf(func() (err error) { took, err = full.roll(ctx, api.DepthPolicy, api.RollOptions{}); return err })
		if err != nil {
			return r, err
		}
		r.PeakRSSBytes = max(r.PeakRSSBytes, peak)
		root, err := full.root(ctx)
		if err != nil {
			return r, err
		}
		per := perSecond(o.Containers, took)
		s.add("perSecond", per)
		s.add("pagesPerSecond", perSecond(o.Containers, pages))
		s.add("rowByRowPerSecond", byRow)
		s.add("ratioToPages", per/perSecond(o.Containers, pages))
		s.add("ratioToRowByRow", per/byRow)
		s.add("seconds", took.Seconds())
		s.add("rootSeconds", root.Seconds())
	}
	o.Progress("decrypt every key again")
	after, err := full.containerKeys(ctx)
	if err != nil {
		return r, err
	}
	if err := checkSameKeys(before, after, int64(o.Containers)); err != nil {
		return r, err
	}
	r.RatioToRowByRow, r.RatioToPages, r.PerSecond, r.RowByRowPerSecond = s.median("ratioToRowByRow"), s.median("ratioToPages"), s.median("perSecond"), s.median("rowByRowPerSecond")
	r.PagesPerSecond, r.CryptoPerSecond, r.Seconds, r.RootSeconds = s.median("pagesPerSecond"), s.median("cryptoPerSecond"), s.median("seconds"), s.median("rootSeconds")
	r.Containers, r.PageSlots, r.KeysOpenedAndEqual = o.Containers, o.PageSlots, after.keys
	if r.Pages, err = full.pages(ctx); err != nil {
		return r, err
	}
	r.Base, err = full.base(ctx, s)
	return r, err
}

// startBoth starts two equal fixtures concurrently.
func startBoth(ctx context.Context, o Options, databases []string) (full, bare *fixture, err error) {
	var g errgroup.Group
	g.Go(func() (err error) { full, err = start(ctx, o, "roll", databases[0]); return err })
	g.Go(func() (err error) { bare, err = start(ctx, o, "pages", databases[1]); return err })
	if err = g.Wait(); err != nil {
		for _, w := range []*fixture{full, bare} {
			if w != nil {
				w.Close()
			}
		}
	}
	return full, bare, err
}

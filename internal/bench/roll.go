package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// RollResult is the result of a benchmark of depth policy: medians, rates in containers
// per second.
type RollResult struct {
	RatioToRowByRow   float64 `json:"ratioToRowByRow"`
	RatioToPages      float64 `json:"ratioToPages"`
	PerSecond         float64 `json:"perSecond"`
	RowByRowPerSecond float64 `json:"rowByRowPerSecond"`
	PagesPerSecond    float64 `json:"pagesPerSecond"`
	CryptoPerSecond   float64 `json:"cryptoPerSecond"`
	Containers        int     `json:"containers"`
	Pages             int64   `json:"pages"`
	PageSlots         int     `json:"pageSlots"`
	Seconds           float64 `json:"seconds"` // of one roll
	RootSeconds       float64 `json:"rootSeconds"`
	// FixedSeconds is the time of a roll of one container, from its start to the commit
	// of its end. It includes UnwrapSeconds, the time to unwrap a policy key with a root
	// key and to record that, and a few times CommitSeconds, the time of a commit.
	FixedSeconds       float64 `json:"fixedSeconds"`
	UnwrapSeconds      float64 `json:"unwrapSeconds"`
	CommitSeconds      float64 `json:"commitSeconds"`
	PeakRSSBytes       int64   `json:"peakRSSBytes"` // of one more roll
	KeysOpenedAndEqual int64   `json:"keysOpenedAndEqual"`
	Base
}

// rollParts are what a round of Roll measures: nodes with equal containers, one of which
// rolls without cryptography, one with a single container, and the rows for comparison.
type rollParts struct {
	full, bare, single *fixture
	rows               *rows
	sample             sampled
}

// Roll fills a database with containers, rolls them at depth policy in interleaved
// rounds with the upper bounds, and decrypts every key again at the end.
func Roll(ctx context.Context, o Options) (r RollResult, err error) {
	if err := o.check(); err != nil {
		return r, err
	}
	databases, drop, err := o.databases(ctx, 3)
	if err != nil {
		return r, err
	}
	defer drop(&err)
	p, err := startRoll(ctx, o, databases)
	defer p.close()
	if err != nil {
		return r, err
	}
	before, err := p.full.containerKeys(ctx)
	if err != nil {
		return r, err
	}
	s := series{}
	for round := range o.Rounds {
		o.Progress(roundOf(round, o.Rounds))
		if err := p.round(ctx, round, s); err != nil {
			return r, err
		}
	}
	o.Progress("decrypt every key again")
	if r.PeakRSSBytes, err = peakOf(func() error { _, err := p.full.roll(ctx, api.DepthPolicy, api.RollOptions{}); return err }); err != nil {
		return r, err
	}
	after, err := p.full.containerKeys(ctx)
	if err != nil {
		return r, err
	}
	if err := checkSameKeys(before, after, int64(o.Containers)); err != nil {
		return r, err
	}
	r.RatioToRowByRow, r.RatioToPages, r.PerSecond, r.RowByRowPerSecond = s.median("ratioToRowByRow"), s.median("ratioToPages"), s.median("perSecond"), s.median("rowByRowPerSecond")
	r.PagesPerSecond, r.CryptoPerSecond, r.Seconds, r.RootSeconds = s.median("pagesPerSecond"), s.median("cryptoPerSecond"), s.median("seconds"), s.median("rootSeconds")
	r.FixedSeconds, r.UnwrapSeconds, r.CommitSeconds = s.median("fixedSeconds"), s.median("unwrapSeconds"), s.median("commitSeconds")
	r.Containers, r.PageSlots, r.KeysOpenedAndEqual = o.Containers, o.PageSlots, after.keys
	if r.Pages, err = p.full.pages(ctx); err != nil {
		return r, err
	}
	r.Base, err = p.full.base(ctx, s)
	return r, err
}

func startRoll(ctx context.Context, o Options, databases []string) (p rollParts, err error) {
	o.Progress(fmt.Sprintf("fill %d mailboxes, twice", o.Containers))
	if p.full, p.bare, err = startBoth(ctx, o, databases[:2]); err != nil {
		return p, err
	}
	p.bare.skipCryptography()
	one := o
	one.Containers = 1
	if p.single, err = start(ctx, one, "single", databases[2]); err != nil {
		return p, err
	}
	o.Progress("fill the rows for comparison")
	if p.rows, err = newRows(ctx, p.bare.bulk(), p.full.Tenant.ID, o.Containers); err != nil {
		return p, err
	}
	p.sample, err = newSample(ctx, p.full.walk)
	return p, err
}

func (p rollParts) close() {
	for _, w := range []*fixture{p.full, p.bare, p.single} {
		if w != nil {
			w.Close()
		}
	}
}

// round measures every part once. What is compared begins in turn, because each leaves
// the database and the disk with work to do.
func (p rollParts) round(ctx context.Context, round int, s series) error {
	n := p.full.options.Containers
	s.add("cryptoPerSecond", cryptography(p.sample, n))
	var full, bare time.Duration
	var byRow float64
	compared := []func() error{
		func() (err error) { bare, err = p.bare.roll(ctx, api.DepthPolicy, api.RollOptions{}); return err },
		func() (err error) { byRow, err = p.rows.roll(ctx); return err },
		func() (err error) { full, err = p.full.roll(ctx, api.DepthPolicy, api.RollOptions{}); return err },
	}
	for i := range compared {
		if err := compared[(round+i)%len(compared)](); err != nil {
			return err
		}
	}
	s.add("perSecond", perSecond(n, full))
	s.add("pagesPerSecond", perSecond(n, bare))
	s.add("rowByRowPerSecond", byRow)
	s.add("ratioToPages", bare.Seconds()/full.Seconds())
	s.add("ratioToRowByRow", perSecond(n, full)/byRow)
	s.add("seconds", full.Seconds())
	for name, measure := range map[string]func(context.Context) (time.Duration, error){
		"rootSeconds": p.full.root, "unwrapSeconds": p.single.unwrap, "commitSeconds": p.single.commit,
		"fixedSeconds": func(ctx context.Context) (time.Duration, error) {
			return p.single.roll(ctx, api.DepthPolicy, api.RollOptions{})
		},
	} {
		took, err := measure(ctx)
		if err != nil {
			return err
		}
		s.add(name, took.Seconds())
	}
	return nil
}

// unwrap times opening the policy key with a root key.
func (w *fixture) unwrap(ctx context.Context) (time.Duration, error) {
	pol, err := w.policy(ctx)
	if err != nil {
		return 0, err
	}
	if err := w.Policies.ForgetKeys(ctx, w.Tenant.ID, pol.ID); err != nil {
		return 0, err
	}
	begin := time.Now()
	key, err := w.Policies.Open(ctx, w.Tenant.ID, pol.Current.ID, policy.User)
	key.Zero()
	return time.Since(begin), err
}

// commit times a transaction that changes one row.
func (w *fixture) commit(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	err := w.DB.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE roll SET retries = retries + 1 WHERE id = (SELECT MAX(id) FROM roll)`)
		return err
	})
	return time.Since(begin), err
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

package bench

import (
	"context"
	"fmt"
)

// RootResult is the result of a benchmark of depth root: medians.
type RootResult struct {
	RatioToFew float64 `json:"ratioToFew"` // the time divided by that with Few containers
	Seconds    float64 `json:"seconds"`
	FewSeconds float64 `json:"fewSeconds"`
	Containers int     `json:"containers"`
	Few        int     `json:"few"`
	Base
}

// fewContainers is the number of containers that depth root is compared at.
const fewContainers = 1000

// Root refreshes a policy of many containers at depth root and, in interleaved rounds,
// one of few, to show that the time does not depend on their number. The time of the
// embedded vaults is included.
func Root(ctx context.Context, o Options) (r RootResult, err error) {
	if err := o.check(); err != nil {
		return r, err
	}
	databases, drop, err := o.databases(ctx, 2)
	if err != nil {
		return r, err
	}
	defer drop(&err)
	o.Progress(fmt.Sprintf("fill %d mailboxes", o.Containers))
	many, err := start(ctx, o, "many", databases[0])
	if err != nil {
		return r, err
	}
	defer many.Close()
	less := o
	less.Containers = fewContainers
	small, err := start(ctx, less, "few", databases[1])
	if err != nil {
		return r, err
	}
	defer small.Close()
	s := series{}
	for round := range o.Rounds {
		o.Progress(roundOf(round, o.Rounds))
		over, err := many.root(ctx)
		if err != nil {
			return r, err
		}
		overFew, err := small.root(ctx)
		if err != nil {
			return r, err
		}
		s.add("seconds", over.Seconds())
		s.add("fewSeconds", overFew.Seconds())
		s.add("ratioToFew", over.Seconds()/overFew.Seconds())
	}
	r = RootResult{RatioToFew: s.median("ratioToFew"), Seconds: s.median("seconds"), FewSeconds: s.median("fewSeconds"), Containers: o.Containers, Few: fewContainers}
	r.Base, err = many.base(ctx, s)
	return r, err
}

package bench

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/fail"
)

// GrowthResult is the result of a benchmark of growth.
type GrowthResult struct {
	// RatioToReference is the rate at the largest number of containers divided by that
	// at Reference, RootRatioToFewest the time of depth root at the largest number
	// divided by that at the smallest.
	RatioToReference  float64 `json:"ratioToReference"`
	RootRatioToFewest float64 `json:"rootRatioToFewest"`
	Reference         int     `json:"reference"`
	Sizes             []Size  `json:"sizes"`
	Base
}

// Size is one point of the curve: medians.
type Size struct {
	Containers    int     `json:"containers"`
	PerSecond     float64 `json:"perSecond"`
	Seconds       float64 `json:"seconds"` // of one roll
	RootSeconds   float64 `json:"rootSeconds"`
	PeakRSSBytes  int64   `json:"peakRSSBytes"` // of a roll, over all rounds
	DatabaseBytes int64   `json:"databaseBytes"`
}

// reference is the number of containers that larger numbers are compared with.
const reference = 100_000

// A round rolls about sampleContainers at each size, small sizes up to maxRepeat times:
// a single small roll would end before the database writes back any of its log.
const (
	sampleContainers = 1_000_000
	maxRepeat        = 10
)

// Growth measures rolls at growing numbers of containers, up to o.Containers, in
// interleaved rounds.
func Growth(ctx context.Context, o Options) (r GrowthResult, err error) {
	if err := o.check(); err != nil {
		return r, err
	}
	if o.Containers <= reference {
		return r, fail.New(api.InvalidArgument, "%d containers are too few to measure growth; use more than %d", o.Containers, reference)
	}
	sizes := []int{fewContainers, reference / 10, reference}
	for n := 10 * reference; n < o.Containers; n *= 10 {
		sizes = append(sizes, n)
	}
	sizes = append(sizes, o.Containers)
	databases, drop, err := o.databases(ctx, len(sizes))
	if err != nil {
		return r, err
	}
	defer drop(&err)
	var fixtures []*fixture
	for i, n := range sizes {
		o.Progress(fmt.Sprintf("fill %d mailboxes", n))
		of := o
		of.Containers = n
		w, err := start(ctx, of, fmt.Sprint(n), databases[i])
		if err != nil {
			return r, err
		}
		defer w.Close()
		fixtures = append(fixtures, w)
	}
	r.Reference = reference
	r.Sizes = make([]Size, len(sizes))
	s := series{}
	for round := range o.Rounds {
		o.Progress(roundOf(round, o.Rounds))
		rates, roots := map[int]float64{}, map[int]float64{}
		for i, w := range fixtures {
			n := sizes[i]
			peak, err := w.growthPoint(ctx, s)
			if err != nil {
				return r, err
			}
			r.Sizes[i].PeakRSSBytes = max(r.Sizes[i].PeakRSSBytes, peak)
			rates[n], roots[n] = s.last(fmt.Sprintf("perSecond/%d", n)), s.last(fmt.Sprintf("rootSeconds/%d", n))
		}
		s.add("ratioToReference", rates[o.Containers]/rates[reference])
		s.add("rootRatioToFewest", roots[o.Containers]/roots[fewContainers])
	}
	for i, n := range sizes {
		at := &r.Sizes[i]
		at.Containers, at.PerSecond, at.Seconds, at.RootSeconds = n, s.median(fmt.Sprintf("perSecond/%d", n)), s.median(fmt.Sprintf("seconds/%d", n)), s.median(fmt.Sprintf("rootSeconds/%d", n))
		b, err := fixtures[i].base(ctx, s)
		if err != nil {
			return r, err
		}
		at.DatabaseBytes, r.Base = b.DatabaseBytes, b
	}
	r.RatioToReference, r.RootRatioToFewest = s.median("ratioToReference"), s.median("rootRatioToFewest")
	return r, nil
}

// growthPoint measures a round of rolls of one size, and returns the peak memory.
func (w *fixture) growthPoint(ctx context.Context, s series) (peak int64, err error) {
	n := w.options.Containers
	repeat := min(max(sampleContainers/n, 1), maxRepeat)
	var seconds float64
	peak, err = peakOf(func() error {
		for range repeat {
			took, err := w.roll(ctx, api.DepthPolicy, api.RollOptions{})
			if err != nil {
				return err
			}
			seconds += took.Seconds()
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	root, err := w.root(ctx)
	s.add(fmt.Sprintf("perSecond/%d", n), float64(n*repeat)/seconds)
	s.add(fmt.Sprintf("seconds/%d", n), seconds/float64(repeat))
	s.add(fmt.Sprintf("rootSeconds/%d", n), root.Seconds())
	return peak, err
}

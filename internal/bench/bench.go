// Package bench measures keyroll and the upper bounds of its speed, in the same run,
// on the same disk, with the same driver and durability.
//
// It reports rates and ratios, not pass or fail. It measures what serve runs: the
// same node, the same roller, the same schema. Start reading at Roll.
package bench

import (
	"context"
	"os"
	"slices"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
	"keyroll/internal/node"
)

// Options says what is measured, and where.
type Options struct {
	Data       string // folder on the disk to measure
	Database   string // URL of a PostgreSQL database; default: SQLite under Data
	Containers int
	Items      int   // messages per container
	ItemSize   int64 // bytes of a message
	PageSlots  int
	Rounds     int // interleaved
	// Script runs cmdlet lines against a node.
	Script func(ctx context.Context, n *node.Node, text string) error
	// Client connects to a node.
	Client   func(n *node.Node) (*client.Client, error)
	Progress func(stage string)
}

func (o Options) check() error {
	switch {
	case o.Containers < 1:
		return fail.New(api.InvalidArgument, "%d containers cannot be rolled; name at least 1", o.Containers)
	case o.Rounds < 1:
		return fail.New(api.InvalidArgument, "the number of rounds is %d; it must be at least 1", o.Rounds)
	}
	return nil
}

// checkItems is check for benchmarks whose containers have content.
func (o Options) checkItems() error {
	if o.Items < 1 || o.ItemSize < 1 {
		return fail.New(api.InvalidArgument, "%d messages of %d bytes per mailbox cannot be measured; both must be at least 1", o.Items, o.ItemSize)
	}
	return o.check()
}

// Figure summarises one value over all rounds.
type Figure struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func figure(values []float64) Figure {
	s := slices.Sorted(slices.Values(values))
	return Figure{Median: s[len(s)/2], Min: s[0], Max: s[len(s)-1]}
}

// series has the values of all rounds, by name.
type series map[string][]float64

func (s series) add(name string, value float64) { s[name] = append(s[name], value) }

func (s series) last(name string) float64 { return s[name][len(s[name])-1] }

func (s series) median(name string) float64 { return figure(s[name]).Median }

// ranges returns the figures of all values.
func (s series) ranges() map[string]Figure {
	all := make(map[string]Figure, len(s))
	for name, values := range s {
		all[name] = figure(values)
	}
	return all
}

// Base says under which conditions the figures were measured.
type Base struct {
	Database   string `json:"database"`
	Durability string `json:"durability"`
	Rounds     int    `json:"rounds"`
	// DatabaseBytes is the size of the database at the end, with indexes, but without
	// the table of the row-by-row comparison.
	DatabaseBytes int64             `json:"databaseBytes"`
	Range         map[string]Figure `json:"range"` // of each median, by its name
}

// Folder makes a new folder for a benchmark on the disk of parent.
func Folder(parent string) (dir string, remove func() error, err error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(parent, "bench-*"); err != nil {
		return "", nil, err
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

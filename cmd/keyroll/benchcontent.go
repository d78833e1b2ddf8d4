package main

import (
	"context"
	"fmt"
	"io"

	"keyroll/internal/bench"
	"keyroll/internal/node"
)

type benchContent struct {
	Size   byteSize `name:"size" default:"1GiB" placeholder:"BYTES" help:"Size of the file; KiB, MiB and GiB may follow the number (${default})."`
	Rounds int      `name:"rounds" default:"5" placeholder:"N" help:"Interleaved rounds (${default})."`
	Data   string   `name:"data" type:"path" placeholder:"DIR" help:"Folder on the disk to measure; a throw-away folder beside the default data folder unless given."`
}

func (c *benchContent) Run(e *env) error {
	return inBenchFolder(c.Data, func(data string) error {
		r, err := bench.Content(e, bench.ContentOptions{
			Data: data, Size: int64(c.Size), Rounds: c.Rounds,
			Script:   func(ctx context.Context, n *node.Node, text string) error { return quietly(ctx, n, text) },
			Client:   localClient,
			Progress: func(stage string) { fmt.Fprintln(e.err, stage) },
		})
		if err != nil {
			return err
		}
		return e.object(r, func(w io.Writer) {
			fields(w, "file", size(r.Size), "path", r.Path, "database", r.Database+", "+r.Durability,
				"ratio of put to plain copy", ratio(r.Range.RatioPutToCopy), "ratio of get to plain copy", ratio(r.Range.RatioGetToCopy),
				"the same, get written with fsync", ratio(r.Range.RatioGetToDiskToCopy),
				"put", byteRate(r.Range.PutPerSecond), "get", byteRate(r.Range.GetPerSecond), "get, written with fsync", byteRate(r.Range.GetToDiskPerSecond),
				"plain copy, with fsync", byteRate(r.Range.CopyPerSecond),
				"seals alone", byteRate(r.Range.SealPerSecond), "opening alone", byteRate(r.Range.OpenPerSecond),
				"memory above idle", fmt.Sprintf("%s to put, %s to get", size(r.PutAboveIdleBytes), size(r.GetAboveIdleBytes)), "memory at idle", size(r.IdleBytes),
				"bytes equal", r.BytesEqual)
		})
	})
}

func byteRate(f bench.Figure) string {
	const mib = 1 << 20
	return fmt.Sprintf("%.0f MiB/s (%.0f to %.0f)", f.Median/mib, f.Min/mib, f.Max/mib)
}

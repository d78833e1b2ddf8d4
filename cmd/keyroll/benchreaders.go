package main

import (
	"fmt"
	"io"
	"time"

	"keyroll/api"
	"keyroll/internal/bench"
)

type benchReaders struct {
	Depth      string        `name:"depth" enum:"policy,container,content" default:"policy" placeholder:"DEPTH" help:"What the rolls replace: policy, container or content (${default})."`
	Containers int           `name:"containers" default:"1000000" placeholder:"N" help:"Mailboxes to roll (${default})."`
	Mailboxes  int           `name:"mailboxes" default:"16" placeholder:"N" help:"How many of them have the messages that are read (${default})."`
	Items      int           `name:"items" default:"64" placeholder:"N" help:"Messages of each of those (${default})."`
	ItemSize   byteSize      `name:"item-size" default:"64KiB" placeholder:"BYTES" help:"Size of a message; KiB, MiB and GiB may follow the number (${default})."`
	Reads      int           `name:"reads" default:"100" placeholder:"N" help:"Messages read a second (${default})."`
	Window     time.Duration `name:"window" default:"10s" placeholder:"TIME" help:"How long is read at rest, and how long beside rolls, each round (${default})."`
	benchPlace
}

func (c *benchReaders) Run(e *env) error {
	return c.in(e, func(o bench.Options) error {
		o.Containers, o.Items, o.ItemSize = c.Containers, c.Items, int64(c.ItemSize)
		r, err := bench.Readers(e, bench.ReadersOptions{Options: o, Depth: api.Depth(c.Depth), Readable: c.Mailboxes, PerSecond: c.Reads, Window: c.Window})
		if err != nil {
			return err
		}
		return e.object(r, func(w io.Writer) {
			var roll, free any = perSecond{"rollPerSecond", "containers"}, perSecond{"freeRollPerSecond", "containers"}
			if r.Depth == api.DepthContent {
				roll, free = bytesPerSecond("rollPerSecond"), bytesPerSecond("freeRollPerSecond")
			}
			figures(w, r.Base, "ratio of p99 beside rolls to at rest", ratio("ratioOfP99"),
				"p99 at rest", inSeconds("p99AtRestSeconds"), "p99 beside rolls", inSeconds("p99RollingSeconds"),
				"median at rest", inSeconds("p50AtRestSeconds"), "median beside rolls", inSeconds("p50RollingSeconds"),
				"roll, held to half its free rate", roll, "roll, free and alone", free, "depth", r.Depth, "containers", r.Containers,
				"reads", fmt.Sprintf("%d of %s, %d/s", r.Reads, size(r.ItemSize), r.ReadsPerSecond), "path", r.Path)
		})
	})
}

package benchcommand

import (
	"fmt"
	"io"
	"time"

	"keyroll/api"
	"keyroll/internal/bench"
	"keyroll/internal/terminal"
)

type readers struct {
	Depth      string            `name:"depth" enum:"policy,container,content" default:"policy" placeholder:"DEPTH" help:"What the rolls replace: policy, container or content (default: ${default})."`
	Containers int               `name:"containers" default:"1000000" placeholder:"N" help:"Number of mailboxes to roll (default: ${default})."`
	Mailboxes  int               `name:"mailboxes" default:"16" placeholder:"N" help:"Number of mailboxes with messages to read (default: ${default})."`
	Items      int               `name:"items" default:"64" placeholder:"N" help:"Messages in each of those (default: ${default})."`
	ItemSize   terminal.ByteSize `name:"item-size" default:"64KiB" placeholder:"BYTES" help:"Size of a message, for example 64KiB, 4MiB or 1GiB (default: ${default})."`
	Reads      int               `name:"reads" default:"100" placeholder:"N" help:"Messages read per second (default: ${default})."`
	Window     time.Duration     `name:"window" default:"10s" placeholder:"TIME" help:"How long each round reads with no roll running, and how long while rolls run (default: ${default})."`
	place
}

func (c *readers) Run(p *Program) error {
	return c.measureIn(p, func(o bench.Options) error {
		o.Containers, o.Items, o.ItemSize = c.Containers, c.Items, int64(c.ItemSize)
		r, err := bench.Readers(p, bench.ReadersOptions{Options: o, Depth: api.Depth(c.Depth), Readable: c.Mailboxes, PerSecond: c.Reads, Window: c.Window})
		if err != nil {
			return err
		}
		return p.Object(r, func(w io.Writer) {
			var roll, free any = perSecond{"rollPerSecond", "containers"}, perSecond{"freeRollPerSecond", "containers"}
			if r.Depth == api.DepthContent {
				roll, free = bytesPerSecond("rollPerSecond"), bytesPerSecond("freeRollPerSecond")
			}
			figures(w, r.Base, "ratio of p99 during rolls to p99 without", ratio("ratioOfP99"),
				"p99 without rolls", inSeconds("p99AtRestSeconds"), "p99 during rolls", inSeconds("p99RollingSeconds"),
				"median without rolls", inSeconds("p50AtRestSeconds"), "median during rolls", inSeconds("p50RollingSeconds"),
				"roll, limited to half its full rate", roll, "roll, without limit and readers", free, "depth", r.Depth, "containers", r.Containers,
				"reads", fmt.Sprintf("%d of %s, %d/s", r.Reads, terminal.Size(r.ItemSize), r.ReadsPerSecond), "path", r.Path)
		})
	})
}

package benchcommand

import (
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/internal/bench"
	"keyroll/internal/terminal"
)

type roll struct {
	Depth      string            `name:"depth" enum:"root,policy,container,content" default:"policy" placeholder:"DEPTH" help:"What the roll replaces: root, policy, container or content (default: ${default})."`
	Containers *int              `name:"containers" placeholder:"N" help:"Number of mailboxes to roll (default: 200000; depth container: 1000, depth content: 8)."`
	Items      *int              `name:"items" placeholder:"N" help:"With depths container and content, messages per mailbox (default: 1000; depth content: 32)."`
	ItemSize   terminal.ByteSize `name:"item-size" default:"4MiB" placeholder:"BYTES" help:"With depth content, size of a message, for example 64KiB, 4MiB or 1GiB (default: ${default})."`
	place
}

func (c *roll) Run(p *Program) error {
	return c.measureIn(p, func(o bench.Options) error {
		o.ItemSize = int64(c.ItemSize)
		switch api.Depth(c.Depth) {
		case api.DepthRoot:
			return c.root(p, c.withCounts(o, 200_000, 0))
		case api.DepthContainer:
			return c.container(p, c.withCounts(o, 1000, 1000))
		case api.DepthContent:
			return c.content(p, c.withCounts(o, 8, 32))
		}
		return c.policy(p, c.withCounts(o, 200_000, 0))
	})
}

// withCounts sets the numbers of mailboxes and messages in o: those of the flags, or else
// the given defaults.
func (c *roll) withCounts(o bench.Options, containers, items int) bench.Options {
	o.Containers, o.Items = containers, items
	if c.Containers != nil {
		o.Containers = *c.Containers
	}
	if c.Items != nil {
		o.Items = *c.Items
	}
	return o
}

func (c *roll) root(p *Program, o bench.Options) error {
	r, err := bench.Root(p, o)
	if err != nil {
		return err
	}
	return p.Object(r, func(w io.Writer) {
		figures(w, r.Base, fmt.Sprintf("ratio to %d containers", r.Few), ratio("ratioToFew"),
			"one refresh at depth root", inSeconds("seconds"), fmt.Sprintf("the same over %d containers", r.Few), inSeconds("fewSeconds"),
			"containers", r.Containers)
	})
}

func (c *roll) policy(p *Program, o bench.Options) error {
	r, err := bench.Roll(p, o)
	if err != nil {
		return err
	}
	return p.Object(r, func(w io.Writer) {
		figures(w, r.Base, "ratio to row by row", ratio("ratioToRowByRow"), "ratio to bare pages", ratio("ratioToPages"),
			"roll", perSecond{"perSecond", "containers"}, "row by row", perSecond{"rowByRowPerSecond", "containers"},
			"bare pages", perSecond{"pagesPerSecond", "containers"}, "cryptography only", perSecond{"cryptoPerSecond", "containers"},
			"one roll", inSeconds("seconds"), "a roll of one container", inSeconds("fixedSeconds"), "of which unwrapping a policy key", inSeconds("unwrapSeconds"),
			"one commit", inSeconds("commitSeconds"), "one refresh at depth root", inSeconds("rootSeconds"), "peak memory of a roll", terminal.Size(r.PeakRSSBytes),
			"containers", r.Containers, "key pages", fmt.Sprintf("%d of %d slots", r.Pages, r.PageSlots), "keys decrypted and equal", r.KeysOpenedAndEqual)
	})
}

func (c *roll) container(p *Program, o bench.Options) error {
	r, err := bench.Container(p, o)
	if err != nil {
		return err
	}
	return p.Object(r, func(w io.Writer) {
		figures(w, r.Base, "ratio to row by row", ratio("ratioToRowByRow"),
			"roll", perSecond{"perSecond", "blob keys"}, "row by row", perSecond{"rowByRowPerSecond", "blob keys"},
			"cryptography only", perSecond{"cryptoPerSecond", "blob keys"},
			"one roll", inSeconds("seconds"), "peak memory of a roll", terminal.Size(r.PeakRSSBytes),
			"mailboxes", r.Containers, "messages of each", r.Items, "keys decrypted and equal", r.KeysOpenedAndEqual)
	})
}

func (c *roll) content(p *Program, o bench.Options) error {
	r, err := bench.Recrypt(p, o)
	if err != nil {
		return err
	}
	return p.Object(r, func(w io.Writer) {
		figures(w, r.Base, "ratio to decryption, encryption and plain copy only", ratio("ratioToLimits"),
			"roll", bytesPerSecond("perSecond"), "decryption, encryption and plain copy only", bytesPerSecond("limitsPerSecond"),
			"decryption only", bytesPerSecond("openPerSecond"), "encryption only", bytesPerSecond("sealPerSecond"), "plain copy, with fsync", bytesPerSecond("copyPerSecond"),
			"one roll", inSeconds("seconds"), "peak memory of a roll", terminal.Size(r.PeakRSSBytes),
			"mailboxes", r.Containers, "messages of each", fmt.Sprintf("%d of %s", r.Items, terminal.Size(r.ItemSize)), "content", terminal.Size(r.Bytes),
			"path", r.Path, "bytes equal", r.BytesEqual)
	})
}

type growth struct {
	Containers int `name:"containers" default:"10000000" placeholder:"N" help:"Largest number of mailboxes (default: ${default})."`
	place
}

func (c *growth) Run(p *Program) error {
	return c.measureIn(p, func(o bench.Options) error {
		o.Containers = c.Containers
		r, err := bench.Growth(p, o)
		if err != nil {
			return err
		}
		return p.Object(r, func(w io.Writer) {
			largest := r.Sizes[len(r.Sizes)-1].Containers
			pairs := []any{fmt.Sprintf("ratio of containers/s at %d to %d", largest, r.Reference), ratio("ratioToReference"),
				fmt.Sprintf("ratio of depth root at %d to %d", largest, r.Sizes[0].Containers), ratio("rootRatioToFewest")}
			for _, s := range r.Sizes {
				pairs = append(pairs, fmt.Sprintf("%d containers", s.Containers),
					fmt.Sprintf("%.0f containers/s, one roll %.3f s, depth root %.3f s, peak memory %s, database %s", s.PerSecond, s.Seconds, s.RootSeconds, terminal.Size(s.PeakRSSBytes), terminal.Size(s.DatabaseBytes)))
			}
			figures(w, r.Base, pairs...)
		})
	})
}

package benchcommand

import (
	"fmt"
	"io"

	"keyroll/internal/bench"
	"keyroll/internal/terminal"
)

type items struct {
	Size    terminal.ByteSize `name:"size" default:"4KiB" placeholder:"BYTES" help:"Size of a message and of a file, for example 500, 4KiB or 64KiB (default: ${default})."`
	Items   int               `name:"items" default:"2000" placeholder:"N" help:"Messages to import, and files to put and get, with each number of clients and in each round (default: ${default})."`
	Clients []int             `name:"clients" default:"1,16,64" placeholder:"N" help:"Numbers of concurrent clients, each measured on its own; the items are shared among them (default: ${default})."`
	place
}

func (c *items) Run(p *Program) error {
	return c.measureIn(p, func(o bench.Options) error {
		o.Items, o.ItemSize = c.Items, int64(c.Size)
		r, err := bench.Items(p, bench.ItemsOptions{Options: o, Clients: c.Clients})
		if err != nil {
			return err
		}
		return p.Object(r, func(w io.Writer) {
			var pairs []any
			for _, f := range r.Clients {
				pairs = append(pairs, itemsPairs(f)...)
			}
			figures(w, r.Base, append(pairs, "items", fmt.Sprintf("%d messages and %d files of %s, with each number of clients and in each round", r.Items, r.Items, terminal.Size(r.ItemSize)),
				"path", r.Path, "bytes equal", r.BytesEqual)...)
		})
	})
}

// itemsPairs names the figures at one number of clients.
func itemsPairs(f bench.ItemsFigures) []any {
	at := fmt.Sprintf("/%d", f.Clients)
	of := terminal.Count(int64(f.Clients), "client") + ": "
	rate := func(name, unit string) perSecond { return perSecond{name + at, unit} }
	return []any{
		of + "ratio of import to plain write", ratio("ratioImportToWrite" + at), of + "ratio of import to its rows alone", ratio("ratioImportToRows" + at),
		of + "ratio of put to plain write", ratio("ratioPutToWrite" + at), of + "ratio of get to get without audit", ratio("ratioGetToWithoutAudit" + at),
		of + "import", rate("importPerSecond", "messages"), of + "plain write of the same mbox, with fsync", rate("writeMailPerSecond", "messages"),
		of + "rows of the import alone", rate("rowsPerSecond", "messages"), of + "objects in the blob store for 1,000 messages", fmt.Sprintf("%.0f", f.ObjectsPer1000Messages),
		of + "put", rate("putPerSecond", "files"), of + "median of a put", inMilliseconds("putP50Seconds" + at), of + "p99 of a put", inMilliseconds("putP99Seconds" + at),
		of + "plain write of each file, with fsync", rate("writeFilesPerSecond", "files"),
		of + "get", rate("getPerSecond", "files"), of + "median of a get", inMilliseconds("getP50Seconds" + at), of + "p99 of a get", inMilliseconds("getP99Seconds" + at),
		of + "get without audit", rate("withoutAuditPerSecond", "files"), of + "list", rate("listPerSecond", "messages"),
	}
}

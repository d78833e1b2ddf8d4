package benchcommand

import (
	"fmt"
	"io"

	"keyroll/internal/bench"
	"keyroll/internal/terminal"
)

type content struct {
	Size terminal.ByteSize `name:"size" default:"1GiB" placeholder:"BYTES" help:"Size of the file, for example 64KiB, 4MiB or 1GiB (default: ${default})."`
	place
}

func (c *content) Run(p *Program) error {
	return c.measureIn(p, func(o bench.Options) error {
		o.ItemSize = int64(c.Size)
		r, err := bench.Content(p, o)
		if err != nil {
			return err
		}
		return p.Object(r, func(w io.Writer) {
			figures(w, r.Base,
				"ratio of put to plain copy", ratio("ratioPutToCopy"), "ratio of get to plain copy", ratio("ratioGetToCopy"),
				"ratio of get with fsync to plain copy", ratio("ratioGetToDiskToCopy"),
				"memory used beyond idle", fmt.Sprintf("%s to put, %s to get", terminal.Size(r.PutAboveIdleBytes), terminal.Size(r.GetAboveIdleBytes)), "memory when idle", terminal.Size(r.IdleBytes),
				"put", bytesPerSecond("putPerSecond"), "get", bytesPerSecond("getPerSecond"), "get, with fsync", bytesPerSecond("getToDiskPerSecond"),
				"plain copy, with fsync", bytesPerSecond("copyPerSecond"), "encryption only", bytesPerSecond("sealPerSecond"), "decryption only", bytesPerSecond("openPerSecond"),
				"file", terminal.Size(r.Size), "path", r.Path, "bytes equal", r.BytesEqual)
		})
	})
}
